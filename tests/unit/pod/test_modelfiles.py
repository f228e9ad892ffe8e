"""What a model's directory must hold."""

import pytest
from finetune_api.conditions import Reason
from finetune_pod.modelfiles import UnsafeModelError, check_safetensors


def test_a_model_needs_safetensors() -> None:
    check_safetensors(["config.json", "model-00001-of-00002.safetensors"], "pvc://models/base")
    with pytest.raises(
        UnsafeModelError, match=r"pvc://models/base contains no \*\.safetensors: .* convert them"
    ) as error:
        check_safetensors(["config.json", "pytorch_model.bin", "model.safetensors.index.json"], "pvc://models/base")
    assert error.value.reason is Reason.MODEL_UNSAFE
