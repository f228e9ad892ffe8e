"""Trainings without an effect, by what they logged and saved."""

from pathlib import Path
from typing import Any

import pytest
from finetune_trainer.train.learning import explain_no_effect, is_zero_adapter


def log(**values: list[float]) -> list[dict[str, Any]]:
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        (log(loss=[0.693147, 0.693147, 0.693147]), "the loss was 0.6931 in all 3 steps"),
        (log(loss=[2.0, 1.9]), ""),
        (log(loss=[2.0]), ""),
        (log(loss=[0.0, 0.0], reward_std=[0.0, 0.0]), "all answers to a prompt got the same reward"),
        (log(loss=[0.0, 0.0], reward_std=[0.0, 0.5]), ""),
        (log(loss=[2.0, 2.0])[:1] + log(eval_loss=[2.0]), ""),
    ],
)
def test_a_loss_that_never_moved_is_found(history: list[dict[str, Any]], problem: str) -> None:
    message = explain_no_effect(history)
    assert message.startswith(problem)
    assert bool(message) == bool(problem)


@pytest.mark.parametrize(("value", "is_zero"), [(0.0, True), (1e-9, False)])
def test_an_adapter_is_zero_if_all_its_second_matrices_are(tmp_path: Path, value: float, is_zero: bool) -> None:
    import torch
    from safetensors.torch import save_file

    name = "base_model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    tensors = {name.format(layer, "A"): torch.ones(2, 3) for layer in (0, 1)}
    tensors |= {name.format(0, "B"): torch.zeros(3, 2), name.format(1, "B"): torch.full((3, 2), value)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert is_zero_adapter(tmp_path) is is_zero
