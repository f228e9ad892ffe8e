"""What vLLM can serve, as far as it is known without it. What a manifest alone shows is in the rules of the API."""

from typing import Any, get_args

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.training import Module

from finetune_pod.architectures import WITHOUT_LORA

LORA_MODULES: tuple[Module, ...] = get_args(Module)
"""The linear layers that take an adapter. The output layer is left out: with it, vLLM ends on CPUs when it is asked
for the likelihood of a prompt."""


def find_unservable(spec: FineTuneJobSpec, architectures: list[Any]) -> str:
    """Return why vLLM loads no adapter for a base model of these architectures; empty where it does.

    It matters without `serving` too, since the proof goes through vLLM; but not for a result that is a model of its
    own, nor for one that gives no answers.
    """
    refused = [str(name) for name in architectures if name in WITHOUT_LORA]
    if not refused or spec.adapter.is_merged or spec.method.reward:
        return ""
    return (
        f"model.uri: {spec.model.uri} is a {refused[0]}, for which vLLM takes no adapters:"
        " use another base model, or adapter.dora or adapter.full, which make a whole one"
    )
