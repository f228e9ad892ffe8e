"""The base model's layers and parameters, from its config.json, without its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason

from finetune_trainer.failures import StageError
from finetune_trainer.loading import choose_model_class
from finetune_trainer.tokenizer import check_model_config
from finetune_trainer.train.target_modules import find_linear_layers


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a base model."""

    parameters: int
    active_parameters: int
    """Parameters that each token is multiplied with: not the embedding, and only the chosen experts of a mixture."""
    linear_parameters: int
    """Parameters of the linear layers without the output layer: 4-bit quantization applies to them."""
    layers: int
    parameters_per_layer: int
    """On average, without embedding and output layer."""
    hidden_size: int
    embedding_rows: int
    """The number of tokens that the model knows."""
    layer_width: int
    """Inputs and outputs of all linear layers of one layer, summed, on average."""
    max_width: int
    """Inputs or outputs of the widest linear layer without the output layer."""
    linear_layers: dict[str, tuple[int, int]]
    """Inputs and outputs of each linear layer that may get an adapter, by its full name."""
    expert_parameters: int
    """Parameters of the routed experts of a mixture."""
    max_positions: int | None
    """The longest sequence in tokens, if the configuration has it."""
    architectures: tuple[str, ...]


def read_shape(directory: Path, uri: str) -> ModelShape:
    """Build the model on torch's `meta` device, without memory, and return its sizes.

    Raises:
        StageError: the model contains its own code, or transformers cannot build it.
    """
    check_model_config(directory, uri)
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        with torch.device("meta"):
            model = choose_model_class(config).from_config(config, trust_remote_code=False)
    except Exception as error:
        # Each architecture raises different errors for a configuration that it does not understand.
        message = f"{uri}: transformers cannot build a model from its config.json: {type(error).__name__}: {error}"
        raise StageError(Reason.MODEL_UNSUPPORTED, message) from error
    return _compute_shape(model, config)


def _compute_shape(model: Any, config: Any) -> ModelShape:
    from torch.nn import Linear

    text = config.get_text_config()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    linears = [layer for layer in model.get_decoder().modules() if isinstance(layer, Linear) and layer is not head]
    chosen, experts = _count_experts(text)
    # All experts of a mixture are one tensor: (experts, inputs, outputs).
    expert_weights = [
        weight for weight in model.parameters() if experts > 1 and weight.dim() == 3 and weight.shape[0] == experts
    ]
    parameters = sum(weight.numel() for weight in model.parameters())
    inactive = sum(weight.numel() for weight in expert_weights) * (experts - chosen) // experts
    is_tied = head is not None and head.weight is embedding.weight
    head_parameters = 0 if head is None or is_tied else head.weight.numel()
    widths = sum(layer.in_features + layer.out_features for layer in linears)
    widths += chosen * sum(sum(weight.shape[1:]) for weight in expert_weights)
    return ModelShape(
        parameters=parameters,
        active_parameters=parameters - inactive - (0 if is_tied else embedding.weight.numel()),
        linear_parameters=sum(layer.weight.numel() for layer in linears),
        layers=text.num_hidden_layers,
        parameters_per_layer=(parameters - embedding.weight.numel() - head_parameters) // text.num_hidden_layers,
        hidden_size=text.hidden_size,
        embedding_rows=embedding.weight.shape[0],
        layer_width=widths // text.num_hidden_layers,
        max_width=max([max(layer.in_features, layer.out_features) for layer in linears], default=text.hidden_size),
        linear_layers=find_linear_layers(model),
        expert_parameters=sum(weight.numel() for weight in expert_weights),
        max_positions=_count_positions(text),
        architectures=tuple(config.architectures or ()),
    )


def _count_experts(config: Any) -> tuple[int, int]:
    """Return how many experts of a mixture process a token, and how many exist; 1 and 1 for other models."""
    chosen = getattr(config, "num_experts_per_tok", None)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    total = next((count for name in names if (count := getattr(config, name, None))), None)
    return (chosen, total) if chosen and total else (1, 1)


def _count_positions(config: Any) -> int | None:
    """Return the longest sequence in tokens, including a factor that scales rotary positions."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    scaling = getattr(config, "rope_parameters", None) or {}
    factor = scaling.get("factor") or 1.0
    return int(positions * max(float(factor), 1.0))
