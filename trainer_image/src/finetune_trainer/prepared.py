"""What the prepare stage wrote for the training: examples, one JSON object per line, hyperparameters, chat template."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.summaries import ChosenHyperparameters
from finetune_pod.template_file import TemplateFile, read_prepared_template
from pydantic import ValidationError

from finetune_trainer.failures import StageError


def write_hyperparameters(directory: JobDirectory, chosen: ChosenHyperparameters) -> None:
    """Write the hyperparameters for the training."""
    directory.hyperparameters.write_text(chosen.model_dump_json(by_alias=True))


def read_hyperparameters(directory: JobDirectory) -> ChosenHyperparameters | None:
    """Return the hyperparameters that `prepare` chose; None if an earlier version of it prepared the job.

    Raises:
        StageError: the file is damaged.
    """
    if not directory.hyperparameters.exists():
        return None
    try:
        return ChosenHyperparameters.model_validate_json(directory.hyperparameters.read_text())
    except ValidationError as error:
        raise StageError(
            Reason.PREPARED_DATA_GONE,
            f"{directory.hyperparameters} is damaged ({error.error_count()} errors): create another FineTuneJob",
        ) from None


def read_chat_template(job: JobFile, directory: JobDirectory) -> TemplateFile | None:
    """Return the chat template of `model.chatTemplate` as it was in `prepare`; None if the job uses the model's own.

    Raises:
        StageError: the file is missing.
    """
    try:
        return read_prepared_template(job, directory)
    except FileNotFoundError:
        raise _prepared_data_gone(directory.chat_template) from None


def read_examples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the examples of a file.

    Raises:
        StageError: the file is missing.
    """
    return map(json.loads, _read_lines(path))


def count_examples(path: Path) -> int:
    """Return the number of examples in a file.

    Raises:
        StageError: the file is missing.
    """
    return sum(1 for _ in _read_lines(path))


def _read_lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except FileNotFoundError:
        raise _prepared_data_gone(path) from None


def _prepared_data_gone(path: Path) -> StageError:
    return StageError(
        Reason.PREPARED_DATA_GONE,
        f"{path} is missing: was the claim emptied after prepare? Create another FineTuneJob",
    )
