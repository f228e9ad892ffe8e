"""Reads rows from data files, one at a time: JSONL, JSON, CSV, TSV and Parquet, plain or compressed.

`formats` interprets the rows.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.data_files import COMPRESSIONS, format_of
from finetune_trainer.prepare.row_issues import describe_type

MAX_ROW_BYTES = 1 << 22
"""A longer row is a mistake: it does not fit into any model's context."""
_BOM = b"\xef\xbb\xbf"
_BATCH = 1024
"""Rows of a Parquet file that are read at a time at most."""
_BATCH_BYTES = 1 << 24
"""Bytes of a Parquet file that are read at a time, as far as rows can be divided."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row and its number, from 1: of its first line, or of the row itself in files without lines."""

    number: int
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that cannot be read; `kind` and `message` are those of a RowError."""

    number: int
    kind: str
    message: str


class UnknownFileError(Exception):
    """A file whose name has an unknown suffix."""


def read_rows(path: Path) -> Iterator[Row | UnreadableRow]:
    """Yield the rows of a file in order.

    If the rest of the file cannot be read, for example because it is truncated, the last one is an UnreadableRow.

    Raises:
        UnknownFileError: the name has an unknown suffix; the message lists the known ones.
    """
    read = _READERS.get(format_of(path))
    if read is None:
        suffixes = ", ".join(suffix for suffix in _READERS if suffix != ".ndjson")
        raise UnknownFileError(
            f"{path.name}: the name must end in one of {suffixes}, optionally followed by one of"
            f" {', '.join(COMPRESSIONS)}"
        )
    number = 0
    try:
        for row in read(path):
            number = row.number
            yield row
    except _read_errors() as error:
        yield UnreadableRow(
            number + 1, "damaged", f"the rest of the file cannot be read, create it again: {_first_line(error)}"
        )


def _read_errors() -> tuple[type[Exception], ...]:
    import ijson
    import pyarrow as pa

    return (OSError, EOFError, pa.ArrowException, csv.Error, UnicodeDecodeError, ijson.JSONError)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _open(path: Path) -> io.BufferedReader:
    """Open a file for reading and decompress it as it is read; memory does not grow with the file."""
    import pyarrow as pa

    compression = COMPRESSIONS.get(path.suffix.lower())
    return io.BufferedReader(pa.input_stream(str(path), compression=compression), 1 << 20)


def _read_jsonl(path: Path) -> Iterator[Row | UnreadableRow]:
    with _open(path) as file:
        number = 0
        while raw := file.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(raw) > MAX_ROW_BYTES:
                while not raw.endswith(b"\n") and (raw := file.readline(MAX_ROW_BYTES)):
                    pass
                yield UnreadableRow(number, "long", f"more than {MAX_ROW_BYTES} bytes: split it into several rows")
                continue
            line = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
            if line:
                yield _parse_line(number, line)


def _parse_line(number: int, line: bytes) -> Row | UnreadableRow:
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_build_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return UnreadableRow(number, "encoding", f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8")
    except json.JSONDecodeError as error:
        hint = "write one JSON object per line"
        return UnreadableRow(number, "json", f"not JSON: {error.msg} (column {error.colno}): {hint}")
    except RecursionError:
        return UnreadableRow(number, "json", "cannot parse the JSON: it is nested too deeply, use fewer levels")
    except _InvalidValueError as error:
        return UnreadableRow(number, "json", f"cannot parse the JSON: {error}")
    except ValueError:
        # Python parses integers of 4,300 digits at most.
        return UnreadableRow(
            number, "json", "cannot parse the JSON: a number has too many digits, write it as a string"
        )
    return _check_object(number, value)


class _InvalidValueError(Exception):
    """A value that a row must not contain."""


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; refuse duplicate fields, one of which would be lost."""
    built = dict(pairs)
    if len(built) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise _InvalidValueError(f"an object has the field {duplicate[:30]!r} twice, remove one")
    return built


def _refuse_constant(name: str) -> None:
    raise _InvalidValueError(f"{name} is not a JSON value, remove the field")


def _check_object(number: int, value: Any) -> Row | UnreadableRow:
    if not isinstance(value, dict):
        return UnreadableRow(
            number, "object", f'the row is {describe_type(value)}, not an object: write {{"messages": [...]}}'
        )
    return Row(number, value)


def _read_json(path: Path) -> Iterator[Row | UnreadableRow]:
    import ijson

    with _open(path) as file:
        start = file.peek(64).removeprefix(_BOM).lstrip()[:1]
        if start != b"[":
            yield UnreadableRow(
                1, "json", "the file does not start with [: write a list of objects, or rename the file to .jsonl"
            )
            return
        if file.peek(3).startswith(_BOM):
            file.read(len(_BOM))
        for number, value in enumerate(ijson.items(file, "item", use_float=True), 1):
            yield _check_object(number, value)


def _read_csv(path: Path, delimiter: str = ",") -> Iterator[Row | UnreadableRow]:
    csv.field_size_limit(MAX_ROW_BYTES)
    with _open(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(reader, [])
        invalid = next((name for name in header if header.count(name) > 1 or not name.strip()), None)
        if invalid is not None:
            problem = f"several columns are named {invalid[:30]!r}" if invalid.strip() else "a column has no name"
            yield UnreadableRow(1, "header", f"{problem}: give each column its own name")
            return
        first_line = reader.line_num + 1
        try:
            for values in reader:
                if not all(value.isascii() or _is_utf8(value) for value in values):
                    yield UnreadableRow(first_line, "encoding", "not UTF-8: save the file as UTF-8")
                elif len(values) == len(header):
                    yield Row(first_line, dict(zip(header, values, strict=True)))
                elif values:
                    counts = f"the row has {len(values)} columns, the header {len(header)}"
                    hint = "put values with delimiters or line breaks in double quotes"
                    yield UnreadableRow(first_line, "columns", f"{counts}: {hint}")
                first_line = reader.line_num + 1
        except csv.Error as error:
            hint = "put the whole value in double quotes, and double each quote inside it"
            yield UnreadableRow(first_line, "quotes", f"the rest of the file cannot be read: {error}: {hint}")


def _is_utf8(value: str) -> bool:
    """Return whether a value was UTF-8: other bytes were decoded to lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_tsv(path: Path) -> Iterator[Row | UnreadableRow]:
    return _read_csv(path, "\t")


def _read_parquet(path: Path) -> Iterator[Row | UnreadableRow]:
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_choose_batch_size(file.metadata)):
            for value in batch.to_pylist():
                number += 1
                try:
                    row = {name: _convert_value(name, cell) for name, cell in value.items() if cell is not None}
                except _InvalidValueError as error:
                    yield UnreadableRow(number, "value", str(error))
                else:
                    yield Row(number, row)


def _choose_batch_size(metadata: Any) -> int:
    """Return how many rows to read at a time: fewer if they are long, to limit memory."""
    size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    return int(max(1, min(_BATCH, _BATCH_BYTES * metadata.num_rows // max(size, 1))))


def _convert_value(name: str, value: Any) -> Any:
    """Return a column's value without null fields: in Parquet each row has all fields that any row has."""
    if isinstance(value, dict):
        return {key: _convert_value(name, nested) for key, nested in value.items() if nested is not None}
    if isinstance(value, list):
        return [_convert_value(name, item) for item in value]
    if value is not None and not isinstance(value, str | int | float):
        raise _InvalidValueError(f"the column {name} has the type {type(value).__name__}: convert it to strings")
    return value


_READERS = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
