"""The micro-batch of a job whose GPU memory ran out: halved, and remembered beside the checkpoints.

All processes of all pods read the same file, so they agree on it in the next try, and so does the next attempt.
"""

import logging
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters

from finetune_trainer.failures import StageError
from finetune_trainer.prepared import count_examples
from finetune_trainer.train.schedule import choose, halve

_LOG = logging.getLogger(__name__)
_NAME = "micro-batch"


def choose_batch(spec: FineTuneJobSpec, directory: JobDirectory) -> ChosenHyperparameters:
    """Return what the job trains with: what `prepare` chose, with a micro-batch that memory had room for.

    Raises:
        StageError: the batch cannot be divided, or the prepared data is gone.
    """
    try:
        chosen = choose(spec, count_examples(directory.train_data))
    except ValueError as error:
        raise StageError(Reason.INVALID_SPEC, str(error)) from None
    return read_micro_batch(directory.checkpoints, chosen)


def read_micro_batch(checkpoints: Path, chosen: ChosenHyperparameters) -> ChosenHyperparameters:
    """Return the hyperparameters with the micro-batch that memory has room for; the batch stays the same."""
    path = checkpoints / _NAME
    if not path.exists():
        return chosen
    micro = int(path.read_text())
    accumulation = chosen.gradient_accumulation_steps * chosen.micro_batch_size // micro
    return chosen.model_copy(update={"micro_batch_size": micro, "gradient_accumulation_steps": accumulation})


def lower_micro_batch(spec: FineTuneJobSpec, directory: JobDirectory) -> None:
    """Halve the micro-batch for the next try; one that cannot be halved stays as it is."""
    checkpoints = directory.checkpoints
    chosen = choose_batch(spec, directory)
    smaller = halve(chosen.micro_batch_size, 2 if spec.method.kto else 1)
    if smaller is None:
        return
    _LOG.warning("out of memory with %d sequences at a time: goes on with %d", chosen.micro_batch_size, smaller)
    checkpoints.mkdir(parents=True, exist_ok=True)
    partial = checkpoints / f"{_NAME}.part"
    partial.write_text(str(smaller))
    partial.replace(checkpoints / _NAME)
