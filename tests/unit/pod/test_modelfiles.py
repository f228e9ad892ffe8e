"""What a model's directory must hold."""

import json
from pathlib import Path

import pytest
from finetune_api.conditions import Reason
from finetune_pod.modelfiles import (
    LANGUAGE_MODEL,
    ModelFilesError,
    UnsafeModelError,
    check_safetensors,
    read_model_config,
)


def test_a_model_needs_safetensors() -> None:
    check_safetensors(["config.json", "model-00001-of-00002.safetensors"], "pvc://models/base")
    with pytest.raises(
        UnsafeModelError, match=r"pvc://models/base contains no \*\.safetensors: .* convert them"
    ) as error:
        check_safetensors(["config.json", "pytorch_model.bin", "model.safetensors.index.json"], "pvc://models/base")
    assert error.value.reason is Reason.MODEL_UNSAFE


@pytest.mark.parametrize(
    ("architecture", "needed", "is_accepted"),
    [
        ("LlamaForCausalLM", LANGUAGE_MODEL, True),
        ("Gemma3ForConditionalGeneration", LANGUAGE_MODEL, True),
        ("T5ForConditionalGeneration", LANGUAGE_MODEL, False),
        ("LlamaForSequenceClassification", "ForSequenceClassification", True),
        ("Gemma3ForConditionalGeneration", "ForSequenceClassification", False),
    ],
)
def test_a_language_model_may_read_images_and_a_reward_model_has_its_own_class(
    architecture: str, needed: str, is_accepted: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    if is_accepted:
        assert read_model_config(tmp_path, "pvc://models/base", needed)["architectures"] == [architecture]
    else:
        with pytest.raises(ModelFilesError, match=f"is {architecture}: a \\*{needed} is needed"):
            read_model_config(tmp_path, "pvc://models/base", needed)
