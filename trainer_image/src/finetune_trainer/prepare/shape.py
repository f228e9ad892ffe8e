"""The base model's shape: its layers and parameters, from config.json alone, without its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason

from finetune_trainer.failures import StageError
from finetune_trainer.tokenizer import check_model


@dataclass(frozen=True)
class ModelShape:
    """What the estimate needs to know of a base model."""

    parameters: int
    active: int
    """Parameters that multiply each token: without the embedding, of a mixture's experts only those that are chosen."""
    linear: int
    """Parameters of the linear layers, the output layer left out: what 4-bit quantisation takes."""
    layers: int
    parameters_a_layer: int
    """On average, embedding and output layer left out."""
    hidden: int
    rows: int
    """Rows of the embedding: the tokens that the model knows."""
    layer_width: int
    """Inputs and outputs of all linear layers of one layer together, on average."""
    widest: int
    """Inputs or outputs of the widest linear layer but the output layer."""
    modules: dict[str, int]
    """For each name of a linear layer the inputs and outputs of all of that name: times the rank, their adapter."""
    positions: int | None
    """Tokens of a sequence that the model was made for, where it says so."""
    architectures: tuple[str, ...]


def read_shape(directory: Path, uri: str) -> ModelShape:
    """Build the model without memory, on torch's `meta` device, and measure it.

    Raises:
        StageError: the model brings code of its own, or transformers cannot build it.
    """
    check_model(directory, uri)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        # Each model's code has errors of its own for a configuration that it does not understand.
        message = f"{uri}: its config.json makes no model: {type(error).__name__}: {error}"
        raise StageError(Reason.MODEL_UNSUPPORTED, message) from error
    return _measure(model, config)


def _measure(model: Any, config: Any) -> ModelShape:
    from torch.nn import Linear

    text = config.get_text_config()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    linears = [(name, one) for name, one in model.named_modules() if isinstance(one, Linear) and one is not head]
    modules: dict[str, int] = {}
    for name, one in linears:
        last = name.rpartition(".")[2]
        modules[last] = modules.get(last, 0) + one.in_features + one.out_features
    chosen, experts = _count_experts(text)
    # Experts of a mixture are one tensor for all: (experts, inputs, outputs).
    stacks = [weight for weight in model.parameters() if weight.dim() == 3 and weight.shape[0] == experts]
    parameters = sum(weight.numel() for weight in model.parameters())
    resting = sum(weight.numel() for weight in stacks) * (experts - chosen) // experts
    is_tied = head is not None and head.weight is embedding.weight
    own_head = 0 if head is None or is_tied else head.weight.numel()
    widths = sum(modules.values()) + chosen * sum(sum(weight.shape[1:]) for weight in stacks)
    return ModelShape(
        parameters=parameters,
        active=parameters - resting - (0 if is_tied else embedding.weight.numel()),
        linear=sum(one.weight.numel() for _, one in linears),
        layers=text.num_hidden_layers,
        parameters_a_layer=(parameters - embedding.weight.numel() - own_head) // text.num_hidden_layers,
        hidden=text.hidden_size,
        rows=embedding.weight.shape[0],
        layer_width=widths // text.num_hidden_layers,
        widest=max([max(one.in_features, one.out_features) for _, one in linears], default=text.hidden_size),
        modules=modules,
        positions=_count_positions(text),
        architectures=tuple(config.architectures or ()),
    )


def _count_experts(config: Any) -> tuple[int, int]:
    """Return how many experts of a mixture a token goes through, and how many there are; of other models 1 and 1."""
    chosen = getattr(config, "num_experts_per_tok", None)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    there = next((count for name in names if (count := getattr(config, name, None))), None)
    return (chosen, there) if chosen and there else (1, 1)


def _count_positions(config: Any) -> int | None:
    """Return the longest sequence; a factor by which the positions are stretched counts."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    scaling = getattr(config, "rope_parameters", None) or {}
    factor = scaling.get("factor") or 1.0
    return int(positions * max(float(factor), 1.0))
