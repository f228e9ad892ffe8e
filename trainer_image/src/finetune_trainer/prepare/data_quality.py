"""Checks whole data sources: errors, contamination, duplicates, contradictions, rare labels. No I/O."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from finetune_trainer.prepare.scan import SourceScan, dataset_invalid

_MAX_ROWS = 5
"""Wrong rows in the message at most."""
_MAX_CHARACTERS = 900
"""Length of the message up to which rows are added to it: the message of a stage has 1024 characters at most."""
_RARE = 0.1
"""A label is rare if a smaller fraction of the examples has it."""


def check_rows(scan: SourceScan) -> None:
    """Refuse a source with a wrong row, or without rows.

    Raises:
        StageError: the message names the source, the number of wrong rows, and the first of them.
    """
    if scan.rows == 0:
        raise dataset_invalid(f"{scan.uri} is empty: add at least one example")
    if not scan.invalid_rows:
        return
    message = f"{scan.uri}: {scan.invalid_rows} of {scan.rows} {scan.unit}s are wrong: "
    first_rows = [row for rows in scan.errors.listed.values() for row in rows[:_MAX_ROWS]][:_MAX_ROWS]
    named: list[str] = []
    for text in (f"{location}: {error[:400]}" for location, error in first_rows):
        if named and len(message) + sum(map(len, named)) + len(text) > _MAX_CHARACTERS:
            break
        named.append(text)
    more = f"; and {scan.invalid_rows - len(named)} more" if scan.invalid_rows > len(named) else ""
    raise dataset_invalid(message + "; ".join(named) + more)


def find_contamination(train: SourceScan, heldout: SourceScan) -> None:
    """Add an error for each held-out example whose prompt is also trained on."""
    train_prompts, first = np.unique(np.asarray(train.prompt_hashes), return_index=True)
    heldout_prompts = np.asarray(heldout.prompt_hashes)
    for index in np.flatnonzero(np.isin(heldout_prompts, train_prompts)):
        location = train.locate(int(first[np.searchsorted(train_prompts, heldout_prompts[index])]))
        message = f"the training data has the same prompt, in {train.uri} {location}: remove one of them"
        heldout.errors.add(heldout.locate(int(index)), "leak", message)


def warn_about_duplicates(scan: SourceScan) -> int:
    """Warn about duplicates and contradictions; return the number of examples that duplicate an earlier one."""
    duplicates = 0
    for index, earlier in _find_repeated(scan.example_hashes):
        duplicates += 1
        scan.warnings.add(
            scan.locate(index), "duplicate", f"identical to {scan.locate(earlier)} and trained on twice: remove one"
        )
    examples = scan.example_hashes
    for index, earlier in _find_repeated(scan.input_hashes):
        if examples[index] != examples[earlier]:
            scan.warnings.add(
                scan.locate(index),
                "contradiction",
                f"contradicts {scan.locate(earlier)}, which differs only in its answer or label: keep the better one",
            )
    return duplicates


def _find_repeated(hashes: Any) -> Iterator[tuple[int, int]]:
    """Yield the index of each value that occurred before, and the index of its first occurrence."""
    values = np.asarray(hashes)
    _, first, group = np.unique(values, return_index=True, return_inverse=True)
    first_occurrences = first[group]
    for index in np.flatnonzero(first_occurrences != np.arange(len(values))):
        yield int(index), int(first_occurrences[index])


def warn_about_rare_label(scan: SourceScan) -> None:
    """Warn if hardly any example has one of the two labels."""
    total = scan.labels.total()
    rare = min((True, False), key=lambda label: scan.labels[label])
    if total and scan.labels[rare] < _RARE * total:
        scan.warnings.add(
            "all",
            "labels",
            f"label is {str(rare).lower()} in only {scan.labels[rare]} of {total} examples: add more of them",
        )
