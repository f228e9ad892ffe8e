"""The micro-batch of a job that ran out of GPU memory: it is halved, and stored next to the checkpoints.

All processes of all pods read the same file, so they restart with the same micro-batch. Later attempts read it too.
"""

import logging
from pathlib import Path

import numpy as np
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters

from finetune_trainer.failures import StageError
from finetune_trainer.prepared import count_examples, read_hyperparameters
from finetune_trainer.train.schedule import choose_hyperparameters, halve_micro_batch

_LOG = logging.getLogger(__name__)
_FILE_NAME = "micro-batch"


def load_hyperparameters(spec: FineTuneJobSpec, directory: JobDirectory) -> ChosenHyperparameters:
    """Return the hyperparameters that `prepare` chose, with the micro-batch that fits into memory.

    Raises:
        StageError: the prepared data is missing.
    """
    chosen = read_hyperparameters(directory) or _choose_without_lengths(spec, directory)
    return read_micro_batch(directory.checkpoints, chosen)


def _choose_without_lengths(spec: FineTuneJobSpec, directory: JobDirectory) -> ChosenHyperparameters:
    """Return hyperparameters for data that a version before 0.2 prepared, as if all examples had the maximum length."""
    lengths = np.full(count_examples(directory.train_data), spec.hyperparameters.max_length)
    try:
        return choose_hyperparameters(spec, lengths)
    except ValueError as error:
        raise StageError(Reason.INVALID_SPEC, str(error)) from None


def read_micro_batch(checkpoints: Path, chosen: ChosenHyperparameters) -> ChosenHyperparameters:
    """Return the hyperparameters with the stored micro-batch, if there is one; the batch size stays the same."""
    path = checkpoints / _FILE_NAME
    if not path.exists():
        return chosen
    micro = int(path.read_text())
    accumulation = chosen.gradient_accumulation_steps * chosen.micro_batch_size // micro
    return chosen.model_copy(update={"micro_batch_size": micro, "gradient_accumulation_steps": accumulation})


def lower_micro_batch(spec: FineTuneJobSpec, directory: JobDirectory) -> None:
    """Halve the micro-batch for the next start of the training; do nothing if it cannot be halved."""
    checkpoints = directory.checkpoints
    chosen = load_hyperparameters(spec, directory)
    smaller = halve_micro_batch(chosen.micro_batch_size, 2 if spec.method.kto else 1)
    if smaller is None:
        return
    _LOG.warning("out of memory with a micro-batch of %d: restarting with %d", chosen.micro_batch_size, smaller)
    checkpoints.mkdir(parents=True, exist_ok=True)
    partial = checkpoints / f"{_FILE_NAME}.part"
    partial.write_text(str(smaller))
    partial.replace(checkpoints / _FILE_NAME)
