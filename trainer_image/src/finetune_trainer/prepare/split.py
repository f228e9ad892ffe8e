"""What the surveys of a job's data say together: whether they can be used, what repeats, what is held out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from finetune_trainer.prepare.dataset import Survey, invalid

_NAMED = 5
"""Wrong rows that the message names at most."""
_ROOM = 900
"""Characters for them: a stage's message has 1024."""
_RARE = 0.1
"""A label of a smaller share of the examples is warned of."""


def check_survey(found: Survey) -> None:
    """Refuse data with a wrong row.

    Raises:
        StageError: it names the source, how many rows are wrong, and the first of them.
    """
    if found.read == 0:
        raise invalid(f"{found.uri} is empty: give at least one example a {found.unit}")
    if not found.wrong:
        return
    message = f"{found.uri}: {found.wrong} of {found.read} {found.unit}s are wrong: "
    listed = [one for listed in found.errors.listed.values() for one in listed[:_NAMED]][:_NAMED]
    named: list[str] = []
    for text in (f"{place}: {what[:400]}" for place, what in listed):
        if named and len(message) + sum(map(len, named)) + len(text) > _ROOM:
            break
        named.append(text)
    more = f"; and {found.wrong - len(named)} more" if found.wrong > len(named) else ""
    raise invalid(message + "; ".join(named) + more)


def find_leaks(train: Survey, heldout: Survey) -> None:
    """Note held-out examples whose question is trained on: they would prove nothing."""
    trained, first = np.unique(np.asarray(train.questions), return_index=True)
    asked = np.asarray(heldout.questions)
    for index in np.flatnonzero(np.isin(asked, trained)):
        known = train.place_of(int(first[np.searchsorted(trained, asked[index])]))
        message = f"the same question is in {train.uri} {known}: it proves nothing, take it out of one of them"
        heldout.errors.add(heldout.place_of(int(index)), "leak", message)


def warn_of_repeats(found: Survey) -> int:
    """Warn of what stands twice and of what contradicts; return how many examples repeat an earlier one."""
    duplicates = 0
    for index, known in _repeats(found.contents):
        duplicates += 1
        found.warnings.add(
            found.place_of(index), "duplicate", f"the same as {found.place_of(known)}: it counts twice, take one out"
        )
    contents = found.contents
    for index, known in _repeats(found.statements):
        if contents[index] != contents[known]:
            found.warnings.add(
                found.place_of(index),
                "contradiction",
                f"answers what {found.place_of(known)} asks in another way: keep the better one",
            )
    return duplicates


def _repeats(hashes: Any) -> Iterator[tuple[int, int]]:
    """Yield the index of each value that stands further up too, and the index of the first that is the same."""
    values = np.asarray(hashes)
    _, first, group = np.unique(values, return_index=True, return_inverse=True)
    known = first[group]
    for index in np.flatnonzero(known != np.arange(len(values))):
        yield int(index), int(known[index])


def warn_of_labels(found: Survey) -> None:
    """Warn where hardly any example has one of the two labels."""
    total = found.labels.total()
    rare = min((True, False), key=lambda label: found.labels[label])
    if total and found.labels[rare] < _RARE * total:
        found.warnings.add(
            "all",
            "labels",
            f"label is {str(rare).lower()} for {found.labels[rare]} of {total} examples: give more of them",
        )


def choose_heldout(found: Survey, fraction: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Choose the part to hold out, as a flag for each example.

    What is asked alike is held out alike, so that no question of the held-out part was trained on.

    Raises:
        StageError: there are too few different examples for both parts.
    """
    questions = np.asarray(found.questions)
    _, group, sizes = np.unique(questions, return_inverse=True, return_counts=True)
    if len(sizes) < 3:
        raise invalid(f"{found.uri}: {len(sizes)} different examples cannot be split: give more, or a validation file")
    order = np.random.default_rng(seed).permutation(len(sizes))
    wanted = max(2, round(len(questions) * fraction))
    count = min(int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1, len(sizes) - 1)
    return np.isin(group, order[:count])


def write_parts(found: Survey, is_heldout: Any, train: Path, heldout: Path) -> None:
    """Divide the examples of a survey between two files; each is whole or not at all."""
    parts = {False: train.with_suffix(".part"), True: heldout.with_suffix(".part")}
    with (
        found.path.open(encoding="utf-8") as examples,
        parts[False].open("w", encoding="utf-8") as first,
        parts[True].open("w", encoding="utf-8") as second,
    ):
        for line, flag in zip(examples, is_heldout, strict=True):
            (second if flag else first).write(line)
    parts[False].replace(train)
    parts[True].replace(heldout)
    found.path.unlink()
