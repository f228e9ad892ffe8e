"""Chooses the linear layers that get an adapter, by looking at the model."""

from collections.abc import Collection, Sequence
from typing import Any

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.servability import is_adapted

_NOT_ADAPTED = {"gate", "router", "shared_expert_gate", "experts"}
"""Parts of the names of layers that get no adapter: routers and routed experts of mixtures."""
_FUSED = ("mamba.out_proj", "mixer.out_proj")
"""Ends of the names of layers whose weights Mamba's kernels read in training, which pass over an adapter."""


def find_linear_layers(model: Any) -> dict[str, tuple[int, int]]:
    """Return the inputs and outputs of the linear layers of a language model, by their full names.

    The output layer, what reads images or sound, and the routers and experts of a mixture are left out.
    """
    from torch.nn import Linear

    decoder, head = model.get_decoder(), model.get_output_embeddings()
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    return {
        f"{prefix}.{name}" if prefix else name: (layer.in_features, layer.out_features)
        for name, layer in decoder.named_modules()
        if isinstance(layer, Linear) and layer is not head and not _NOT_ADAPTED & set(name.split("."))
    }


def choose_target_modules(
    spec: FineTuneJobSpec, layers: Collection[str], architectures: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the full names of the layers that get an adapter, and of those that can get none.

    Args:
        spec: the spec of a job with a low-rank adapter.
        layers: the full names of the model's linear layers.
        architectures: of the model.
    """
    low_rank = spec.adapter.low_rank
    ends = tuple(f".{name}" for name in (low_rank and low_rank.target_modules) or ())
    numbers = low_rank.layers if low_rank else None
    wanted = [
        name
        for name in layers
        if (not ends or f".{name}".endswith(ends)) and (not numbers or _find_number(name) in numbers)
    ]
    # A whole model needs no support for adapters in vLLM.
    left_out = {
        name for name in wanted if name.endswith(_FUSED) or not (spec.produces_model or is_adapted(name, architectures))
    }
    return [name for name in wanted if name not in left_out], sorted(left_out)


def list_kinds(layers: Collection[str]) -> list[str]:
    """Return the last parts of the names of layers, each once, in alphabetical order."""
    return sorted({name.rpartition(".")[2] for name in layers})


def _find_number(layer: str) -> int | None:
    """Return the index of the decoder layer that a linear layer belongs to; None if it belongs to none."""
    return next((int(part) for part in layer.split(".") if part.isdigit()), None)
