"""What the prepare stage wrote for the training: the examples, one JSON object per line, and its decisions."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.finetunejob import FineTuneJobSpec

from finetune_trainer.failures import StageError


def disable_packing(spec: FineTuneJobSpec) -> FineTuneJobSpec:
    """Return the spec of a job without packing."""
    if spec.method.sft is None:
        return spec
    sft = spec.method.sft.model_copy(update={"packing": False})
    return spec.model_copy(update={"method": spec.method.model_copy(update={"sft": sft})})


def apply_preparation(job: JobFile, directory: JobDirectory) -> JobFile:
    """Return a job as it is trained: without packing if `prepare` found that the model mixes packed examples."""
    return replace(job, spec=disable_packing(job.spec)) if directory.no_packing.exists() else job


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
        raise StageError(
            Reason.PREPARED_DATA_GONE,
            f"{path} is missing: was the claim emptied after prepare? Create another FineTuneJob",
        ) from None
