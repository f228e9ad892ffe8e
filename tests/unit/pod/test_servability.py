"""Base models that are refused because vLLM cannot serve their adapters."""

from typing import Any

import pytest
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.servability import LORA_MODULES, find_unservable

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


def test_the_layers_that_take_adapters_are_those_of_the_api() -> None:
    assert LORA_MODULES == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
