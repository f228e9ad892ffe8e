"""vLLM's ranks, and the directory or repository of a model."""

from pathlib import Path

import pytest
from finetune_pod.modelfiles import UnsafeModelError
from finetune_serving.vllm_config import choose_cpu_dtype, list_lora_layers, read_config, resolve_model, round_up_rank


def test_ranks_are_rounded_up_to_those_that_vllm_allows() -> None:
    assert [round_up_rank(rank) for rank in (1, 8, 9, 64, 300)] == [8, 8, 16, 64, 320]


def test_no_room_is_reserved_for_a_layer_that_vllm_would_refuse() -> None:
    assert "input_linear" in list_lora_layers({"architectures": ["GraniteMoeHybridForCausalLM"]})
    assert "input_linear" not in list_lora_layers({"architectures": ["GraniteMoeSharedForCausalLM"]})
    assert "up_proj" in list_lora_layers({"architectures": ["LagunaForCausalLM"]})
    assert "q_proj" in list_lora_layers({})


def test_gated_delta_nets_are_computed_in_bfloat16_on_cpus(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"linear_key_head_dim": 128}}')
    assert choose_cpu_dtype(read_config(str(tmp_path), None)) == "bfloat16"
    assert choose_cpu_dtype({"hidden_size": 64}) == "float32"


def test_a_model_with_pickles_only_is_unsafe(tmp_path: Path) -> None:
    base = tmp_path / "claims" / "models" / "base"
    base.mkdir(parents=True)
    (base / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (base / "pytorch_model.bin").touch()
    with pytest.raises(UnsafeModelError, match="pickles are never loaded, convert them"):
        resolve_model("pvc://models/base", tmp_path)
    assert resolve_model("pvc://models/base", tmp_path, weights=False) == str(base)
