"""Reads a data source once: checks every row, writes the examples for training, and keeps a few numbers of each.

A million rows take about 70 MB of memory, whatever their length.
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
from typing import Any, BinaryIO

from finetune_api.conditions import Reason
from finetune_api.data import Format
from finetune_pod.fingerprints import hash_example, hash_input, hash_prompt
from finetune_pod.requests import parse_arguments

from finetune_trainer.failures import StageError
from finetune_trainer.prepare.files import Row, UnknownFileError, UnreadableRow, read_rows, unit_of
from finetune_trainer.prepare.formats import MESSAGE_FIELDS, Example
from finetune_trainer.prepare.json_rows import MAX_ROW_BYTES
from finetune_trainer.prepare.row_issues import RowError, RowIssues, RowWarning
from finetune_trainer.prepare.row_reader import RowReader
from finetune_trainer.prepare.row_warnings import find_warnings
from finetune_trainer.prepare.token_counts import TokenCounts

_BATCH = 256


CountTokens = Callable[[list[Example]], list[TokenCounts]]


@dataclass
class SourceScan:
    """The content of one data source. Arrays have a value for each example, in their order, if not said otherwise."""

    uri: str
    unit: str
    """What messages call a row: `line` or `row`."""
    path: Path
    """The file to which the examples are written, one JSON object per line."""
    format: Format | None = None
    rows: int = 0
    errors: RowIssues = field(default_factory=RowIssues)
    """Rows that cannot be used, each with its first error only."""
    last_invalid: str = ""
    """Location of the last row that cannot be used because of its tokens."""
    warnings: RowIssues = field(default_factory=RowIssues)
    ignored_fields: Counter[str] = field(default_factory=Counter)
    """The number of rows with each field that is ignored."""
    files: list[tuple[int, str]] = field(default_factory=list)
    """The index of each file's first example, and its name."""
    row_numbers: "array[int]" = field(default_factory=lambda: array("I"))
    """The number of the example's row in its file."""
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    """The position of its line in `path`, in bytes."""
    sample_counts: "array[int]" = field(default_factory=lambda: array("I"))
    """The number of training samples that the example becomes."""
    sample_tokens: "array[int]" = field(default_factory=lambda: array("I"))
    """Tokens of each sample, of all examples one after the other."""
    sample_longest: "array[int]" = field(default_factory=lambda: array("I"))
    """Tokens of each sample's longest sequence, likewise."""
    longest: "array[int]" = field(default_factory=lambda: array("I"))
    """Tokens of the example's longest sequence."""
    target_tokens: "array[int]" = field(default_factory=lambda: array("I"))
    learned_answers: "array[int]" = field(default_factory=lambda: array("I"))
    unlearned_answers: "array[int]" = field(default_factory=lambda: array("I"))
    thinking_off: "array[int]" = field(default_factory=lambda: array("B"))
    """Whether all its answers are learned with thinking switched off."""
    labels: "array[int]" = field(default_factory=lambda: array("B"))
    """Its label, if the format has labels; otherwise the array is empty."""
    message_counts: "array[int]" = field(default_factory=lambda: array("I"))
    prompt_hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    """See `hash_prompt`."""
    input_hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    """See `hash_input`."""
    example_hashes: "array[int]" = field(default_factory=lambda: array("Q"))

    @property
    def invalid_rows(self) -> int:
        """The number of rows that cannot be used."""
        return self.errors.counts.total()

    def locate(self, index: int) -> str:
        """Return the location of an example's row."""
        name = self.files[bisect_right(self.files, index, key=lambda file: file[0]) - 1][1]
        return self.describe_location(name, self.row_numbers[index])

    def describe_location(self, name: str, number: int) -> str:
        """Return file and number of a row; without the file if there is only one."""
        prefix = f"{name} " if len(self.files) > 1 else ""
        return f"{prefix}{self.unit} {number}"


def detect_source_format(uri: str, files: list[Path], reader: RowReader) -> Format | None:
    """Return the format of the first row that has one; None if no row has.

    Raises:
        StageError: a file name has an unknown suffix.
    """
    try:
        for row in chain.from_iterable(map(read_rows, files)):
            if isinstance(row, Row):
                with suppress(RowError):
                    return reader.detect_format(row.value)
    except UnknownFileError as error:
        raise dataset_invalid(f"{uri}: {error}") from None
    return None


def scan_source(
    uri: str, files: list[Path], row_format: Format | None, reader: RowReader, count_tokens: CountTokens, path: Path
) -> SourceScan:
    """Scan the files of a data source.

    Args:
        uri: the source, for messages.
        files: its files.
        row_format: the format of its rows; None if `detect_source_format` found none.
        reader: reads rows into the examples that the job's method trains on.
        count_tokens: counts the tokens of a batch of examples.
        path: the file for the examples. It appears only when it is complete.

    Raises:
        StageError: a file name has an unknown suffix.
    """
    scan = SourceScan(uri, unit_of(files[0]), path, row_format)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("wb") as out:
        for file in files:
            scan.files.append((len(scan.row_numbers), file.name))
            parsed = _parse_file(scan, file, reader)
            while batch := list(islice(parsed, _BATCH)):
                _add_examples(scan, file.name, batch, count_tokens, out)
    partial.replace(path)
    return scan


@dataclass(frozen=True, slots=True)
class _ParsedExample:
    row_number: int
    example: Example
    line: bytes
    """The example as JSON."""


def _parse_file(scan: SourceScan, file: Path, reader: RowReader) -> Iterator[_ParsedExample]:
    """Yield the examples of each row that can be used, and add the errors of all others to the scan."""
    try:
        for row in read_rows(file):
            scan.rows += 1
            location = scan.describe_location(file.name, row.number)
            if isinstance(row, UnreadableRow):
                scan.errors.add(location, row.kind, row.message)
                continue
            try:
                examples, warnings = _read_row(scan, row.value, reader)
                parsed = [_ParsedExample(row.number, example, _serialize(example)) for example in examples]
            except RowError as error:
                scan.errors.add(location, error.kind, str(error))
            else:
                for warning in warnings:
                    scan.warnings.add(location, *warning)
                yield from parsed
    except UnknownFileError as error:
        raise dataset_invalid(f"{scan.uri}: {error}") from None


def _read_row(scan: SourceScan, row: dict[str, Any], reader: RowReader) -> tuple[list[Example], list[RowWarning]]:
    try:
        read = reader.read(row, scan.format)
        examples = [
            {key: parse_arguments(value) if key in MESSAGE_FIELDS else value for key, value in example.items()}
            for example in read.examples
        ]
    except RecursionError:
        raise RowError("json", "the row is nested too deeply: use fewer levels") from None
    scan.ignored_fields.update(read.ignored_fields)
    return examples, read.warnings


def _serialize(example: Example) -> bytes:
    """Return an example as a line of JSON.

    Raises:
        RowError: JSON or UTF-8 cannot represent it, or it is too long.
    """
    try:
        line = json.dumps(example, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(error.object[error.start]):04x}"
        raise RowError(
            "encoding", f"the row contains only one half of a character ({code}): write both halves"
        ) from None
    except RecursionError:
        raise RowError("json", "the row is nested too deeply: use fewer levels") from None
    except ValueError:
        raise RowError("value", f"{_find_non_finite(example)} is NaN or infinite: remove the field") from None
    if len(line) > MAX_ROW_BYTES:
        raise RowError("long", f"the row has more than {MAX_ROW_BYTES} bytes: split it into several rows")
    return line + b"\n"


def _find_non_finite(example: Example) -> str:
    """Return the first field of a row whose value JSON cannot represent."""
    for name, value in (example | example.get("reference", {})).items():
        try:
            json.dumps(value if name != "reference" else None, allow_nan=False)
        except ValueError:
            return str(name)
    return "a value"


def _add_examples(
    scan: SourceScan,
    file_name: str,
    batch: list[_ParsedExample],
    count_tokens: CountTokens,
    out: BinaryIO,
) -> None:
    """Count the tokens of examples, and write those that fit and add them to the scan."""
    for parsed, counts in zip(batch, count_tokens([parsed.example for parsed in batch]), strict=True):
        example = parsed.example
        location = scan.describe_location(file_name, parsed.row_number)
        if counts.error is not None:
            if location != scan.last_invalid:  # A row may become several examples.
                scan.errors.add(location, counts.error.kind, str(counts.error))
            scan.last_invalid = location
            continue
        for warning in (*find_warnings(example, is_chat=scan.format == "Chat"), *counts.warnings):
            scan.warnings.add(location, *warning)
        scan.offsets.append(out.tell())
        out.write(parsed.line)
        scan.row_numbers.append(parsed.row_number)
        scan.sample_counts.append(len(counts.samples))
        scan.sample_tokens.extend(sample.tokens for sample in counts.samples)
        scan.sample_longest.extend(sample.longest for sample in counts.samples)
        scan.longest.append(max(sample.longest for sample in counts.samples))
        scan.target_tokens.append(counts.targets)
        scan.learned_answers.append(counts.learned)
        scan.unlearned_answers.append(counts.unlearned)
        scan.thinking_off.append(counts.thinking_off)
        scan.message_counts.append(sum(len(example.get(key, ())) for key in MESSAGE_FIELDS))
        scan.prompt_hashes.append(hash_prompt(example))
        scan.input_hashes.append(hash_input(example))
        scan.example_hashes.append(hash_example(example))
        if "label" in example:
            scan.labels.append(example["label"])


def dataset_invalid(message: str) -> StageError:
    """Return the failure of data that cannot be used."""
    return StageError(Reason.DATASET_INVALID, message)
