"""Goes through the data of a job once: checks every row, writes it as training reads it, keeps a few numbers of each.

A million rows take some 30 MB of memory here, whatever their length.
"""

import hashlib
import json
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from finetune_api.chat import parse_arguments
from finetune_api.conditions import Reason
from finetune_api.data import Format
from finetune_api.reports import ExitCode

from finetune_trainer.failures import StageError
from finetune_trainer.files import Problem, Row, UnknownFileError, read_rows, unit_of
from finetune_trainer.formats import Example, detect_format, parse_row, unknown_fields
from finetune_trainer.messages import RowError

_LISTED = 100
"""Wrong rows of a kind that the report lists; all are counted."""
_NAMED = 5
"""Wrong rows that the message names."""
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Measured:
    """What the tokenizer makes of an example: its tokens, or why it cannot be used."""

    tokens: int
    problem: RowError | None = None


Measure = Callable[[list[Example]], list[Measured]]


@dataclass
class Survey:
    """What was found in one data source, and where its examples were written."""

    uri: str
    unit: str
    """What its rows are counted in: `line` or `row`."""
    path: Path
    """The file with its examples, one JSON object a line."""
    format: Format | None = None
    read: int = 0
    wrong: int = 0
    problems: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Place and message of the first wrong rows, by the kind of mistake."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many rows have each kind of mistake."""
    ignored: Counter[str] = field(default_factory=Counter)
    """How many rows have each field that is passed over."""
    places: list[tuple[int, str]] = field(default_factory=list)
    """For each file the index of its first example and its name."""
    numbers: "array[int]" = field(default_factory=lambda: array("I"))
    """The number of each example's row."""
    tokens: "array[int]" = field(default_factory=lambda: array("I"))
    """The length of each example in tokens."""
    turns: "array[int]" = field(default_factory=lambda: array("I"))
    """The number of each example's messages."""
    questions: "array[int]" = field(default_factory=lambda: array("Q"))
    """A hash of what each example asks: all before its last answer."""
    contents: "array[int]" = field(default_factory=lambda: array("Q"))
    """A hash of each whole example."""

    def add_problem(self, place: str, kind: str, message: str) -> None:
        """Note that a row is wrong."""
        self.wrong += 1
        self.counts[kind] += 1
        listed = self.problems.setdefault(kind, [])
        if len(listed) < _LISTED:
            listed.append((place, message))

    def place_of(self, index: int) -> str:
        """Say where an example stands."""
        name = self.places[bisect_right(self.places, index, key=lambda one: one[0]) - 1][1]
        return self.name_place(name, self.numbers[index])

    def name_place(self, name: str, number: int) -> str:
        """Say where a row stands; the file is named only where there are several."""
        prefix = f"{name} " if len(self.places) > 1 else ""
        return f"{prefix}{self.unit} {number}"


def find_format(uri: str, files: list[Path]) -> Format | None:
    """Return the format of the first row that has one; None where none has.

    Raises:
        StageError: a file's name tells of no known format.
    """
    try:
        for row in chain.from_iterable(map(read_rows, files)):
            if isinstance(row, Row):
                with suppress(RowError):
                    return detect_format(row.value)
    except UnknownFileError as error:
        raise invalid(f"{uri}: {error}") from None
    return None


def survey(uri: str, files: list[Path], name: Format | None, measure: Measure, path: Path) -> Survey:
    """Go through the files of a data source.

    Args:
        uri: how the user names it.
        files: its files.
        name: the format of its rows; None where `find_format` found none.
        measure: measures examples with the model's tokenizer, many at once.
        path: the file to write the examples to; it is whole or not at all.

    Raises:
        StageError: a file's name tells of no known format.
    """
    found = Survey(uri, unit_of(files[0]), path, format=name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("w", encoding="utf-8") as out:
        for file in files:
            found.places.append((len(found.numbers), file.name))
            parsed = _parse(found, file)
            while rows := list(islice(parsed, _BATCH)):
                _take(found, file.name, rows, measure, out.write)
    partial.replace(path)
    return found


def _parse(found: Survey, file: Path) -> Iterator[tuple[int, Example]]:
    """Yield the number and the example of each row that can be used."""
    for row in read_rows(file):
        found.read += 1
        if isinstance(row, Problem):
            found.add_problem(found.name_place(file.name, row.number), row.kind, row.message)
            continue
        try:
            example = _parse_row(found, row)
        except RowError as error:
            found.add_problem(found.name_place(file.name, row.number), error.kind, str(error))
        else:
            yield row.number, example


def _parse_row(found: Survey, row: Row) -> Example:
    name = found.format or detect_format(row.value)
    found.ignored.update(unknown_fields(row.value, name))
    example = parse_row(row.value, name)
    return {
        key: parse_arguments(value) if key in ("messages", "prompt", "chosen", "rejected", "completion") else value
        for key, value in example.items()
    }


def _take(
    found: Survey, name: str, rows: list[tuple[int, Example]], measure: Measure, write: Callable[[str], Any]
) -> None:
    numbers, examples = zip(*rows, strict=True)
    for number, example, measured in zip(numbers, examples, measure(list(examples)), strict=True):
        if measured.problem is not None:
            found.add_problem(found.name_place(name, number), measured.problem.kind, str(measured.problem))
            continue
        text = json.dumps(example, ensure_ascii=False)
        write(text + "\n")
        found.numbers.append(number)
        found.tokens.append(measured.tokens)
        found.turns.append(sum(len(value) for value in example.values() if isinstance(value, list)))
        found.questions.append(_hash(json.dumps(_question_of(example), sort_keys=True)))
        found.contents.append(_hash(text))


def _question_of(example: Example) -> Any:
    """Return what an example asks, without the system's words."""
    messages = example.get("messages", example.get("prompt"))
    if messages is None:
        return example["text"]
    if "messages" in example:
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        messages = messages[:last]
    return [one for one in messages if one["role"] not in ("system", "developer")]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def check_survey(found: Survey) -> None:
    """Refuse data with a wrong row.

    Raises:
        StageError: it names the source, how many rows are wrong, and the first of them.
    """
    if found.read == 0:
        raise invalid(f"{found.uri} is empty: give at least one example a {found.unit}")
    if not found.wrong:
        return
    first = [one for listed in found.problems.values() for one in listed[:_NAMED]][:_NAMED]
    named = "; ".join(f"{place}: {message[:160]}" for place, message in first)
    more = f"; and {found.wrong - len(first)} more" if found.wrong > len(first) else ""
    raise invalid(f"{found.uri}: {found.wrong} of {found.read} {found.unit}s are wrong: {named}{more}")


def find_leaks(train: Survey, heldout: Survey) -> None:
    """Note held-out examples whose question is trained on: they would prove nothing."""
    trained, first = np.unique(np.asarray(train.questions), return_index=True)
    asked = np.asarray(heldout.questions)
    for index in np.flatnonzero(np.isin(asked, trained)):
        known = train.place_of(int(first[np.searchsorted(trained, asked[index])]))
        message = f"the same question is in {train.uri} {known}: it proves nothing"
        heldout.add_problem(heldout.place_of(int(index)), "leak", message)


def count_duplicates(found: Survey) -> int:
    """Return how many examples stand in the data more than once, beyond the first of each."""
    return len(found.contents) - len(np.unique(np.asarray(found.contents)))


def choose_heldout(found: Survey, fraction: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Choose the part to hold out, as a flag for each example.

    What is asked alike is held out alike, so that no question of the held-out part was trained on.

    Raises:
        StageError: there are too few different examples for both parts.
    """
    questions = np.asarray(found.questions)
    _, group, sizes = np.unique(questions, return_inverse=True, return_counts=True)
    if len(sizes) < 3:
        raise invalid(f"{len(sizes)} different examples cannot be split: give more, or a validation file")
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


def read_examples(path: Path) -> Iterator[Example]:
    """Yield what `survey` wrote.

    Raises:
        StageError: the file is missing.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except FileNotFoundError:
        raise StageError(
            ExitCode.NOT_FOUND,
            Reason.DATASET_NOT_FOUND,
            f"{path} is missing: was the claim emptied after prepare?",
        ) from None


def invalid(message: str) -> StageError:
    """Return the failure of data that cannot be used."""
    return StageError(ExitCode.BAD_DATA, Reason.DATASET_INVALID, message)
