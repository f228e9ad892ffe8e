"""Tiny models of four families are trained and served as transformers and PEFT compute them; `make families` has all.

They have fused projections, a part that reads images, a mixture with gated delta nets and shared experts, and latent
attention.
"""

from typing import Any

import pytest
from families.__main__ import measure
from families.catalog import FAMILIES
from families.report import find_problems

FIGURES: dict[str, Any] = {
    "estimated": 100,
    "trained": 100,
    "dtype": "float32",
    "base": 1e-5,
    "adapter": 1e-5,
    "base_answers": 1.0,
    "adapter_answers": 1.0,
    "effects": {"q_proj": 0.5},
}


@pytest.mark.parametrize("model_type", ["phi3", "gemma3", "qwen3_next", "deepseek_v3"])
def test_vllm_computes_base_and_adapter_as_transformers_and_peft_do(model_type: str) -> None:
    figures = measure(model_type)
    assert find_problems(FAMILIES[model_type], figures) == [], figures


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"error": "RuntimeError: x"}, "phi3: RuntimeError: x"),
        ({"adapter": 0.01}, "phi3: adapter differs by 0.01 nats"),
        ({"trained": 99}, "phi3: 99 parameters were trained, 100 estimated"),
        ({"adapter_answers": 0.75}, "phi3: not all greedy answers are the same"),
        ({"effects": {"q_proj": 1e-5}}, "phi3: the adapters of q_proj change too little to be compared"),
    ],
)
def test_a_difference_is_a_problem(change: dict[str, Any], problem: str) -> None:
    problems = find_problems(FAMILIES["phi3"], FIGURES | change)
    assert problems == ([problem] if problem else [])
