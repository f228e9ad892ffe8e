"""Checks that vLLM can serve a job's result, without vLLM. The API's validation has the rules that need no model."""

from collections.abc import Sequence
from typing import Any

from finetune_api.finetunejob import FineTuneJobSpec

from finetune_pod.architectures import LORA_LAYERS, NOT_ADAPTED, WITHOUT_LORA


def find_unservable(spec: FineTuneJobSpec, architectures: Sequence[Any]) -> str:
    """Return why vLLM cannot load an adapter for a base model of these architectures; empty if it can.

    Jobs without `serving` need it too, because the evaluation uses vLLM. Merged models and reward models do not.
    """
    unsupported = [str(name) for name in architectures if name in WITHOUT_LORA]
    if not unsupported or spec.adapter.is_merged or spec.method.reward:
        return ""
    return (
        f"model.uri: {spec.model.uri} is a {unsupported[0]}, for which vLLM does not support adapters:"
        " use another base model, or adapter.dora or adapter.full, whose result is a complete model"
    )


def is_adapted(layer: str, architectures: Sequence[str]) -> bool:
    """Return whether vLLM applies an adapter of a linear layer, by the layer's full name in the model."""
    exceptions = [name for architecture in architectures for name in NOT_ADAPTED.get(architecture, ())]
    return layer.rpartition(".")[2] in LORA_LAYERS and not any(f".{layer}".endswith(f".{name}") for name in exceptions)
