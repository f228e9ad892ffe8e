"""Goes through the data of a job once: checks every row, writes it as training reads it, keeps a few numbers of each.

A million rows take some 40 MB of memory here, whatever their length.
"""

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

from finetune_api.conditions import Reason
from finetune_api.data import Format
from finetune_pod.chat import parse_arguments

from finetune_trainer.data_files import unit_of
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.files import LONGEST_ROW, Problem, Row, UnknownFileError, read_rows
from finetune_trainer.prepare.fingerprints import hash_content, hash_question, hash_statement
from finetune_trainer.prepare.formats import Example, check_format, detect_format, parse_row, unknown_fields
from finetune_trainer.prepare.measure import Measured
from finetune_trainer.prepare.row_issues import Findings, RowError
from finetune_trainer.prepare.row_warnings import find_cautions

_BATCH = 256
_MESSAGES = ("messages", "prompt", "chosen", "rejected", "completion")


Convert = Callable[[Example], list[Example]]
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
    errors: Findings = field(default_factory=Findings)
    """What is wrong; a row has one mistake at most, its first."""
    warnings: Findings = field(default_factory=Findings)
    """What stops nothing."""
    ignored: Counter[str] = field(default_factory=Counter)
    """How many rows have each field that is passed over."""
    labels: Counter[bool] = field(default_factory=Counter)
    """How many examples have each label, where they have one."""
    places: list[tuple[int, str]] = field(default_factory=list)
    """For each file the index of its first example and its name."""
    numbers: "array[int]" = field(default_factory=lambda: array("I"))
    """The number of each example's row."""
    tokens: "array[int]" = field(default_factory=lambda: array("I"))
    """The tokens of each example, over all its sequences."""
    longest: "array[int]" = field(default_factory=lambda: array("I"))
    """The tokens of each example's longest sequence."""
    learnt: "array[int]" = field(default_factory=lambda: array("I"))
    """The tokens of each example that are learnt."""
    turns: "array[int]" = field(default_factory=lambda: array("I"))
    """The number of each example's messages."""
    questions: "array[int]" = field(default_factory=lambda: array("Q"))
    """A hash of what each example asks: all before its last answer, without the system's words."""
    statements: "array[int]" = field(default_factory=lambda: array("Q"))
    """A hash of what each example decides about: two that decide it differently contradict each other."""
    contents: "array[int]" = field(default_factory=lambda: array("Q"))
    """A hash of each whole example."""

    @property
    def wrong(self) -> int:
        """How many rows are wrong."""
        return self.errors.counts.total()

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


def survey(uri: str, files: list[Path], name: Format | None, convert: Convert, measure: Measure, path: Path) -> Survey:
    """Go through the files of a data source.

    Args:
        uri: how the user names it.
        files: its files.
        name: the format of its rows; None where `find_format` found none.
        convert: makes an example into those that the job's method learns from.
        measure: measures examples with the model's tokenizer, many at once.
        path: the file to write the examples to; it is whole or not at all.

    Raises:
        StageError: a file's name tells of no known format.
    """
    found = Survey(uri, unit_of(files[0]), path, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("w", encoding="utf-8") as out:
        for file in files:
            found.places.append((len(found.numbers), file.name))
            parsed = _parse(found, file, convert)
            while rows := list(islice(parsed, _BATCH)):
                _take(found, file.name, rows, measure, out.write)
    partial.replace(path)
    return found


@dataclass(frozen=True, slots=True)
class _Parsed:
    """An example, the number of its row, and itself as it is written."""

    number: int
    example: Example
    text: str


def _parse(found: Survey, file: Path, convert: Convert) -> Iterator[_Parsed]:
    """Yield the examples of each row that can be used."""
    try:
        for row in read_rows(file):
            found.read += 1
            if isinstance(row, Problem):
                found.errors.add(found.name_place(file.name, row.number), row.kind, row.message)
                continue
            try:
                examples = _parse_row(found, row.value, convert)
                parsed = [_Parsed(row.number, one, _write(one)) for one in examples]
            except RowError as error:
                found.errors.add(found.name_place(file.name, row.number), error.kind, str(error))
            else:
                yield from parsed
    except UnknownFileError as error:
        raise invalid(f"{found.uri}: {error}") from None


def _parse_row(found: Survey, row: dict[str, Any], convert: Convert) -> list[Example]:
    name = found.format or detect_format(row)
    check_format(row, name)
    found.ignored.update(unknown_fields(row, name))
    try:
        examples = convert(parse_row(row, name))
        return [
            {key: parse_arguments(value) if key in _MESSAGES else value for key, value in example.items()}
            for example in examples
        ]
    except RecursionError:
        raise RowError("json", "it is nested too deeply: write it with fewer levels") from None


def _write(example: Example) -> str:
    """Return an example as JSON.

    Raises:
        RowError: it holds what JSON or UTF-8 has no signs for, or is too long.
    """
    try:
        text = json.dumps(example, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except UnicodeEncodeError as error:
        sign = f"\\u{ord(error.object[error.start]):04x}"
        raise RowError("encoding", f"half of a character ({sign}) stands alone: write the whole one") from None
    except RecursionError:
        raise RowError("json", "it is nested too deeply: write it with fewer levels") from None
    except ValueError:
        raise RowError("value", f"{_find_unwritable(example)} is not a number (NaN, Infinity): leave it out") from None
    if size > LONGEST_ROW:
        raise RowError("long", f"more than {LONGEST_ROW} bytes: divide it into several rows")
    return text


def _find_unwritable(example: Example) -> str:
    """Name the first field of a row whose value JSON cannot write."""
    for name, value in (example | example.get("reference", {})).items():
        try:
            json.dumps(value if name != "reference" else None, allow_nan=False)
        except ValueError:
            return str(name)
    return "a value"


def _take(found: Survey, name: str, rows: list[_Parsed], measure: Measure, write: Callable[[str], Any]) -> None:
    for row, measured in zip(rows, measure([row.example for row in rows]), strict=True):
        place = found.name_place(name, row.number)
        if measured.problem is not None:
            found.errors.add(place, measured.problem.kind, str(measured.problem))
            continue
        for warned in (*find_cautions(row.example, is_chat=found.format == "Chat"), *measured.warnings):
            found.warnings.add(place, *warned)
        write(row.text + "\n")
        found.numbers.append(row.number)
        found.tokens.append(measured.tokens)
        found.longest.append(measured.longest)
        found.learnt.append(measured.learnt)
        found.turns.append(sum(len(row.example.get(key, ())) for key in _MESSAGES))
        found.questions.append(hash_question(row.example))
        found.statements.append(hash_statement(row.example))
        found.contents.append(hash_content(row.example))
        if "label" in row.example:
            found.labels[row.example["label"]] += 1


def invalid(message: str) -> StageError:
    """Return the failure of data that cannot be used."""
    return StageError(Reason.DATASET_INVALID, message)
