"""vLLM's ranks, and the directory or repository of a model."""

from pathlib import Path

import pytest
from finetune_pod.modelfiles import UnsafeModelError
from finetune_serving.vllm_config import resolve_model, round_up_rank


def test_ranks_are_rounded_up_to_those_that_vllm_allows() -> None:
    assert [round_up_rank(rank) for rank in (1, 8, 9, 64, 300)] == [8, 8, 16, 64, 320]


def test_a_model_with_pickles_only_is_unsafe(tmp_path: Path) -> None:
    base = tmp_path / "claims" / "models" / "base"
    base.mkdir(parents=True)
    (base / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (base / "pytorch_model.bin").touch()
    with pytest.raises(UnsafeModelError, match="pickles are never loaded, convert them"):
        resolve_model("pvc://models/base", tmp_path)
    assert resolve_model("pvc://models/base", tmp_path, weights=False) == str(base)
