"""Checks that the base model can be trained and served as the job says, before the data is read."""

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.servability import find_unservable

from finetune_trainer.failures import StageError
from finetune_trainer.prepare.shape import ModelShape
from finetune_trainer.train.target_modules import choose_target_modules, list_kinds


def check_model_support(spec: FineTuneJobSpec, shape: ModelShape, largest_token: int) -> None:
    """Refuse a job whose model cannot be trained, or whose result cannot be evaluated or served.

    Args:
        spec: the job's.
        shape: of its base model.
        largest_token: the largest id in the tokenizer's vocabulary.

    Raises:
        StageError: the message names the field and says what to do.
    """
    unservable = find_unservable(spec, list(shape.architectures))
    if unservable:
        raise StageError(Reason.NOT_SERVABLE, unservable)
    _check_layers(spec, shape)
    uri, max_length = spec.model.uri, spec.hyperparameters.max_length
    if largest_token >= shape.embedding_rows:
        raise _unsupported(
            f"{uri}: its tokenizer has ids up to {largest_token}, but its embedding has {shape.embedding_rows} rows:"
            " use tokenizer and weights of the same model"
        )
    if shape.max_positions is not None and max_length > shape.max_positions:
        raise StageError(
            Reason.INVALID_SPEC,
            f"hyperparameters.maxLength is {max_length}, but {uri} supports {shape.max_positions} tokens at most:"
            " lower it",
        )


def explain_renderer(shape: ModelShape) -> str:
    """Return why the server may send other prompts than the model's chat template renders; empty if it does not."""
    if "GptOssForCausalLM" not in shape.architectures:
        return ""
    return (
        "training and evaluation render chats with the model's chat template, but vLLM renders those of gpt-oss with"
        " OpenAI's Harmony, which may differ: send rendered prompts to /v1/completions where every token counts"
    )


def explain_layers(spec: FineTuneJobSpec, shape: ModelShape) -> str:
    """Return which layers of the model get no adapter although the job names none; empty if all get one."""
    low_rank = spec.adapter.low_rank
    if low_rank is None:
        return ""
    _, left_out = choose_target_modules(spec, shape.linear_layers, shape.architectures)
    parts = []
    if left_out:
        parts.append(f"{', '.join(list_kinds(left_out))}, which cannot be adapted in {shape.architectures[0]}")
    if shape.expert_parameters and not low_rank.target_modules:
        parts.append(f"the routed experts, {shape.expert_parameters / shape.parameters:.0%} of its parameters")
    return f"these layers of {spec.model.uri} get no adapter: {'; '.join(parts)}" if parts else ""


def _check_layers(spec: FineTuneJobSpec, shape: ModelShape) -> None:
    uri, name, low_rank = spec.model.uri, spec.adapter.name, spec.adapter.low_rank
    names = [f".{layer}" for layer in shape.linear_layers]
    missing = [
        module
        for module in (low_rank and low_rank.target_modules) or ()
        if not any(layer.endswith(f".{module}") for layer in names)
    ]
    if missing:
        raise _unsupported(
            f"adapter.{name}.targetModules contains {', '.join(missing)}, but {uri} has no such linear layers:"
            f" it has {', '.join(list_kinds(shape.linear_layers))}"
        )
    layers = low_rank.layers if low_rank else spec.adapter.full.layers if spec.adapter.full else None
    if layers and max(layers) >= shape.layers:
        raise _unsupported(
            f"adapter.{name}.layers contains {max(layers)}, but the last of the {shape.layers} layers of {uri} is"
            f" {shape.layers - 1}: correct it"
        )
    if low_rank and not choose_target_modules(spec, shape.linear_layers, shape.architectures)[0]:
        raise StageError(
            Reason.NOT_SERVABLE,
            f"none of the layers of {uri} that adapter.{name} names can be adapted and served: name other layers,"
            " or use another base model or adapter.full",
        )


def _unsupported(message: str) -> StageError:
    return StageError(Reason.MODEL_UNSUPPORTED, message)
