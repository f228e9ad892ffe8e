"""Adapter configurations that are refused."""

from typing import Any

import pytest
from finetune_api.modelserver import Model
from finetune_serving.adapters import AdapterRefusedError, check_adapter_config, check_applied

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "pvc://models/base",
    "r": 16,
    "target_modules": ["q_proj", "model.layers.0.mlp.up_proj"],
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"peft_type": "IA3"}, "only LORA is supported"),
        ({"base_model_name_or_path": "pvc://models/other"}, "it was trained on"),
        ({"r": 64}, "its rank is 64"),
        ({"r": "16"}, "its rank is '16'"),
        ({"target_modules": "all-linear"}, "its target_modules are 'all-linear'"),
        ({"target_modules": ["lm_head"]}, "its target_modules"),
        ({"target_modules": ["q_proj", "model.layers.0.mlp.gate"]}, "its target_modules"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
    ],
)
def test_an_adapter_that_vllm_cannot_serve_is_refused_with_a_reason(change: dict[str, Any], problem: str) -> None:
    message = check_adapter_config(CONFIG | change, Model(uri="pvc://models/base"), 16)
    assert problem in message
    assert bool(message) == bool(problem)


def test_an_adapter_whose_layers_no_worker_applies_is_refused() -> None:
    check_applied([[], ["model.layers.0.mlp.up_proj"]])
    with pytest.raises(AdapterRefusedError, match=r"does not apply 2 of its layers, such as layers\.0\.a"):
        check_applied([["layers.1.a", "layers.0.a"], ["layers.0.a", "layers.1.a", "layers.2.a"]])
