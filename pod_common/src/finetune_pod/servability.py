"""Checks that vLLM can serve a job's result, without vLLM. The API's validation has the rules that need no model."""

from typing import Any, get_args

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.training import Module

from finetune_pod.architectures import WITHOUT_LORA

LORA_MODULES: tuple[Module, ...] = get_args(Module)
"""The linear layers that get an adapter. With an adapter on the output layer, vLLM crashes on CPUs when it computes the
likelihood of a prompt."""


def find_unservable(spec: FineTuneJobSpec, architectures: list[Any]) -> str:
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
