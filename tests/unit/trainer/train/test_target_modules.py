"""Which layers of a model get an adapter."""

from typing import Any

import pytest
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_trainer.train.target_modules import choose_target_modules, list_kinds

LAYERS = [
    f"model.layers.{layer}.{name}"
    for layer in range(2)
    for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.shared_expert.up_proj", "odd")
]


def choose(
    architecture: str, kind: str = "lora", names: list[str] = LAYERS, **adapter: Any
) -> tuple[list[str], list[str]]:
    values = {
        "model": {"uri": "pvc://models/base"},
        "dataset": {"train": {"uri": "pvc://data/x"}},
        "method": {"sft": {}},
        "adapter": {kind: adapter},
    }
    return choose_target_modules(FineTuneJobSpec.model_validate(values), names, [architecture])


def test_by_default_all_layers_that_vllm_adapts_get_an_adapter() -> None:
    chosen, left_out = choose("Phi3ForCausalLM")
    assert chosen == [name for name in LAYERS if not name.endswith("odd")]
    assert left_out == ["model.layers.0.odd", "model.layers.1.odd"]
    assert list_kinds(chosen) == ["gate_up_proj", "o_proj", "q_proj", "up_proj"]


def test_layers_that_kernels_read_past_an_adapter_are_left_out() -> None:
    """PEFT refuses some of them too; the others would stay as they were, without a word."""
    layers = ["model.layers.0.mamba.in_proj", "model.layers.0.mamba.out_proj", "model.layers.1.linear_attn.out_proj"]
    for kind in ("lora", "dora"):
        chosen, left_out = choose("GraniteMoeHybridForCausalLM", kind, layers)
        assert left_out == ["model.layers.0.mamba.out_proj"]
        assert chosen == [name for name in layers if name not in left_out]


def test_exceptions_of_an_architecture_are_left_out() -> None:
    chosen, left_out = choose("Glm4ForCausalLM")
    assert list_kinds(chosen) == ["o_proj", "q_proj", "up_proj"]
    assert list_kinds(left_out) == ["gate_up_proj", "odd"]


def test_a_whole_model_needs_no_support_for_adapters() -> None:
    assert choose("Glm4ForCausalLM", "dora") == (LAYERS, [])


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        ({"targetModules": ["q_proj"]}, ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        ({"targetModules": ["q_proj"], "layers": [1]}, ["model.layers.1.self_attn.q_proj"]),
        ({"targetModules": ["shared_expert.up_proj"], "layers": [0]}, ["model.layers.0.mlp.shared_expert.up_proj"]),
        ({"targetModules": ["proj"]}, []),
    ],
)
def test_named_layers_match_the_end_of_their_names_at_a_dot(adapter: dict[str, Any], expected: list[str]) -> None:
    assert choose("LlamaForCausalLM", **adapter)[0] == expected
