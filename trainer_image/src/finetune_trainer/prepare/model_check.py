"""Whether the base model can do what the job asks: found before the data is read and a GPU is asked for."""

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.servability import LORA_MODULES, find_unservable

from finetune_trainer.failures import StageError
from finetune_trainer.prepare.shape import ModelShape


def check_fitness(spec: FineTuneJobSpec, shape: ModelShape, largest_token: int) -> None:
    """Refuse a job whose model could not be trained, or whose result could not be proven or served.

    Args:
        spec: the job's.
        shape: of its base model.
        largest_token: the largest id that the tokenizer gives.

    Raises:
        StageError: with the field and what to do.
    """
    unservable = find_unservable(spec, list(shape.architectures))
    if unservable:
        raise StageError(Reason.NOT_SERVABLE, unservable)
    _check_layers(spec, shape)
    uri, longest = spec.model.uri, spec.hyperparameters.max_length
    if largest_token >= shape.rows:
        raise _unsupported(
            f"{uri}: its tokenizer gives tokens up to {largest_token}, its embedding has {shape.rows} rows:"
            " they are not of one model"
        )
    if shape.positions is not None and longest > shape.positions:
        raise StageError(
            Reason.INVALID_SPEC,
            f"hyperparameters.maxLength is {longest}, {uri} was made for {shape.positions} tokens at most: lower it",
        )


def _check_layers(spec: FineTuneJobSpec, shape: ModelShape) -> None:
    uri, name, low_rank = spec.model.uri, spec.adapter.name, spec.adapter.low_rank
    wanted = (low_rank.target_modules or LORA_MODULES) if low_rank else ()
    missing = [module for module in wanted if module not in shape.modules]
    if missing:
        raise _unsupported(
            f"{uri} has no linear layers {', '.join(missing)}: adapter.{name} is trained on {', '.join(wanted)};"
            f" name in adapter.{name}.targetModules what it has, or use another base model"
        )
    layers = low_rank.layers if low_rank else spec.adapter.full.layers if spec.adapter.full else None
    if layers and max(layers) >= shape.layers:
        raise _unsupported(f"adapter.{name}.layers names layer {max(layers)}, {uri} has {shape.layers}, counted from 0")


def _unsupported(message: str) -> StageError:
    return StageError(Reason.MODEL_UNSUPPORTED, message)
