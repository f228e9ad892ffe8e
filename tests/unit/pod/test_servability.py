"""Base models that are refused because vLLM cannot serve their adapters."""

from typing import Any

import pytest
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.servability import find_unservable, is_adapted

SPEC: dict[str, Any] = {
    "model": {"uri": "pvc://models/base"},
    "dataset": {"train": {"uri": "pvc://data/x"}},
    "method": {"sft": {}},
}


@pytest.mark.parametrize(
    ("adapter", "architecture", "is_refused"),
    [
        ("lora", "LlamaForCausalLM", False),
        ("lora", "SomethingNewForCausalLM", False),
        ("lora", "BloomForCausalLM", True),
        ("qlora", "BloomForCausalLM", True),
        ("dora", "BloomForCausalLM", False),
        ("full", "BloomForCausalLM", False),
    ],
)
def test_a_base_model_without_adapters_in_vllm_is_refused_for_adapters(
    adapter: str, architecture: str, is_refused: bool
) -> None:
    spec = FineTuneJobSpec.model_validate(SPEC | {"adapter": {adapter: {}}})
    problem = find_unservable(spec, [architecture])
    assert bool(problem) == is_refused
    if is_refused:
        assert (
            "model.uri: pvc://models/base is a BloomForCausalLM, for which vLLM does not support adapters: use"
            in problem
        )


def test_a_reward_model_may_have_any_base_model() -> None:
    spec = FineTuneJobSpec.model_validate(SPEC | {"adapter": {"lora": {}}, "method": {"reward": {}}})
    assert find_unservable(spec, ["BloomForCausalLM"]) == ""


@pytest.mark.parametrize(
    ("layer", "architecture", "expected"),
    [
        ("model.layers.0.self_attn.q_proj", "LlamaForCausalLM", True),
        ("model.layers.0.mlp.gate_up_proj", "Phi3ForCausalLM", True),
        ("model.layers.0.mlp.gate_up_proj", "Glm4ForCausalLM", False),
        ("model.layers.0.mlp.shared_experts.up_proj", "LagunaForCausalLM", False),
        ("model.layers.0.mlp.up_proj", "LagunaForCausalLM", True),
        ("model.layers.0.self_attn.q_proj", "SomethingNewForCausalLM", True),
        ("lm_head", "LlamaForCausalLM", False),
        ("model.layers.0.something_new", "SomethingNewForCausalLM", False),
    ],
)
def test_vllm_adapts_the_layers_that_it_knows_by_name(layer: str, architecture: str, expected: bool) -> None:
    assert is_adapted(layer, [architecture]) == expected
