"""Checks whole data sources: errors, contamination, duplicates, contradictions, rare labels. No I/O."""

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.prepare.mix import Mix
from finetune_trainer.prepare.row_issues import RowIssues
from finetune_trainer.prepare.scan import SourceScan, dataset_invalid

_MAX_ROWS = 5
"""Wrong rows in the message at most."""
_MAX_CHARACTERS = 900
"""Length of the message up to which rows are added to it: the message of a stage has 1024 characters at most."""
_RARE = 0.1
"""A label is rare if a smaller fraction of the examples has it."""


def check_rows(*scans: SourceScan) -> None:
    """Refuse sources with a wrong row, or without rows.

    Raises:
        StageError: the message names the first such source, how many of its rows are wrong, the first ones of each
            kind, and the other such sources.
    """
    for scan in scans:
        if scan.rows == 0:
            raise dataset_invalid(f"{scan.uri} is empty: add at least one example")
    wrong = [scan for scan in scans if scan.invalid_rows]
    if not wrong:
        return
    message, *others = [f"{scan.uri}: {scan.invalid_rows} of {scan.rows} {scan.unit}s are wrong" for scan in wrong]
    end = "".join(f"; {other}" for other in others)
    named: list[str] = []
    for text in (f"{location}: {error[:400]}" for location, error in _choose_errors(wrong[0])):
        if named and len(message) + len(end) + sum(map(len, named)) + len(text) > _MAX_CHARACTERS:
            break
        named.append(text)
    more = f"; and {wrong[0].invalid_rows - len(named)} more" if wrong[0].invalid_rows > len(named) else ""
    raise dataset_invalid(f"{message}: {'; '.join(named)}{more}{end}")


def _choose_errors(scan: SourceScan) -> list[tuple[str, str]]:
    """Return location and error of the rows to name: one of each kind, then a second one of each kind, and so on."""
    rounds = zip_longest(*(rows[:_MAX_ROWS] for rows in scan.errors.listed.values()))
    return [row for rows in rounds for row in rows if row][:_MAX_ROWS]


def find_contamination(mix: Mix, heldout: SourceScan) -> None:
    """Add an error for each held-out example whose prompt is also trained on."""
    included = mix.included
    train_prompts, first = np.unique(mix.collect("prompt_hashes")[included], return_index=True)
    heldout_prompts = np.asarray(heldout.prompt_hashes)
    for index in np.flatnonzero(np.isin(heldout_prompts, train_prompts)):
        train, position = mix.find(int(included[first[np.searchsorted(train_prompts, heldout_prompts[index])]]))
        message = f"the training data has the same prompt, in {train.uri} {train.locate(position)}: remove one of them"
        heldout.errors.add(heldout.locate(int(index)), "leak", message)


def warn_about_duplicates(mix: Mix) -> int:
    """Warn about duplicates and contradictions; return the number of examples that duplicate an earlier one.

    The copies of an example that the weight of its source asks for are no duplicates.
    """
    included, duplicates = mix.included, 0
    examples, inputs = mix.collect("example_hashes")[included], mix.collect("input_hashes")[included]
    for index, earlier in _find_repeated(examples):
        duplicates += 1
        _warn(mix, included[[index, earlier]], "duplicate", "identical to {} and trained on twice: remove one")
    for index, earlier in _find_repeated(inputs):
        if examples[index] != examples[earlier]:
            message = "contradicts {}, which differs only in its answer or label: keep the better one"
            _warn(mix, included[[index, earlier]], "contradiction", message)
    return duplicates


def _warn(mix: Mix, indices: NDArray[np.intp], kind: str, message: str) -> None:
    """Warn about the first of two examples; the message names the second one, and its source if it is another."""
    (scan, position), (earlier_scan, earlier_position) = (mix.find(int(index)) for index in indices)
    location = earlier_scan.locate(earlier_position)
    name = location if earlier_scan is scan else f"{earlier_scan.uri} {location}"
    scan.warnings.add(scan.locate(position), kind, message.format(name))


def _find_repeated(hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Yield the index of each value that occurred before, and the index of its first occurrence."""
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    first_occurrences = first[group]
    for index in np.flatnonzero(first_occurrences != np.arange(len(hashes))):
        yield int(index), int(first_occurrences[index])


def warn_about_rare_label(labels: NDArray[np.uint8], warnings: RowIssues) -> None:
    """Warn if hardly any example has one of the two labels.

    Args:
        labels: 0 or 1 for each example; empty if they have none.
        warnings: the warnings to add to.
    """
    counts = np.bincount(labels, minlength=2)
    rare = bool(counts[1] < counts[0])
    if counts[int(rare)] < _RARE * len(labels):
        warnings.add(
            "all",
            "labels",
            f"label is {str(rare).lower()} in only {counts[int(rare)]} of {len(labels)} examples: add more of them",
        )
