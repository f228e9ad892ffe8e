"""Finds trainings that ended without an effect, from what they logged and from the adapter that they saved."""

from pathlib import Path
from typing import Any

_MIN_STEPS = 2
"""One step logs the loss before it, so its loss cannot move."""
_TOLERANCE = 1e-7
"""Losses that differ by less are equal: they are computed in bfloat16 or float32."""


def explain_no_effect(log_history: list[dict[str, Any]]) -> str:
    """Return why the logged metrics of a training show that nothing was learned; empty if they do not.

    Args:
        log_history: what the trainer of transformers logged.
    """
    steps = [entry for entry in log_history if "loss" in entry]
    if len(steps) < _MIN_STEPS:
        return ""
    deviations = [entry["reward_std"] for entry in steps if "reward_std" in entry]
    if deviations:
        if max(deviations) > 0:
            return ""
        return (
            "all answers to a prompt got the same reward, in every step: use graders that tell answers apart,"
            " or raise method.grpo.temperature"
        )
    losses = [entry["loss"] for entry in steps]
    if max(losses) - min(losses) > _TOLERANCE:
        return ""
    return f"the loss was {losses[0]:.4g} in all {len(losses)} steps: raise hyperparameters.learningRate"


def is_zero_adapter(directory: Path) -> bool:
    """Return whether an adapter changes nothing: the second matrices of all its pairs are zero, as at the start."""
    from safetensors import safe_open

    with safe_open(directory / "adapter_model.safetensors", framework="pt") as file:
        second = [name for name in file.keys() if ".lora_B." in name]  # noqa: SIM118 - not a dictionary
        return bool(second) and not any(file.get_tensor(name).any().item() for name in second)
