"""The examples that the prepare stage wrote, one JSON object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason

from finetune_trainer.failures import StageError


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
