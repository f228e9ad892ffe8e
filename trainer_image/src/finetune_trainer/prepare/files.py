"""Reads rows from data files, one at a time: JSONL, JSON, CSV, TSV and Parquet, plain or compressed.

`formats` interprets the rows.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from finetune_trainer.data_files import COMPRESSIONS, format_of
from finetune_trainer.prepare.json_rows import MAX_ROW_BYTES, parse_line, parse_list
from finetune_trainer.prepare.row_issues import RowError

_BOM = b"\xef\xbb\xbf"
_BATCH = 1024
"""Rows of a Parquet file that are read at a time at most."""
_BATCH_BYTES = 1 << 24
"""Bytes of a Parquet file that are read at a time, as far as rows can be divided."""
_SEVERAL_LINES = "an object begins but does not end here: write each object on one line, or a list [{...}, {...}]"


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


def unit_of(path: Path) -> str:
    """Return what messages call a row of a file: `line`, or `row` in Parquet and in a JSON list."""
    if format_of(path) not in _READERS or _READERS[format_of(path)] is not _read_json:
        return "row" if format_of(path) == ".parquet" else "line"
    try:
        with _open(path) as file:
            return "row" if _starts_with_list(file) else "line"
    except _read_errors():
        return "line"


def _read_errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (OSError, EOFError, pa.ArrowException, csv.Error)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _open(path: Path) -> io.BufferedReader:
    """Open a file for reading and decompress it as it is read; memory does not grow with the file."""
    import pyarrow as pa

    compression = COMPRESSIONS.get(path.suffix.lower())
    return io.BufferedReader(pa.input_stream(str(path), compression=compression), 1 << 20)


def _read_json(path: Path) -> Iterator[Row | UnreadableRow]:
    """Read a list of objects, if the file starts with `[`, or else an object from each line."""
    with _open(path) as file:
        if not _starts_with_list(file):
            yield from _read_lines(file)
            return
        for number, item in enumerate(parse_list(file), 1):
            yield _to_unreadable(number, item) if isinstance(item, RowError) else Row(number, item)


def _starts_with_list(file: io.BufferedReader) -> bool:
    return file.peek(64).removeprefix(_BOM).lstrip()[:1] == b"["


def _to_unreadable(number: int, error: RowError) -> UnreadableRow:
    return UnreadableRow(number, error.kind, str(error))


def _read_lines(file: io.BufferedReader) -> Iterator[Row | UnreadableRow]:
    number, is_first = 0, True
    while raw := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(raw) > MAX_ROW_BYTES:
            while not raw.endswith(b"\n") and (raw := file.readline(MAX_ROW_BYTES)):
                pass
            yield UnreadableRow(number, "long", f"more than {MAX_ROW_BYTES} bytes: split it into several rows")
            continue
        line = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
        if not line:
            continue
        if is_first and line == b"{":
            yield UnreadableRow(number, "json", _SEVERAL_LINES)
            return
        is_first = False
        try:
            yield Row(number, parse_line(line))
        except RowError as error:
            yield _to_unreadable(number, error)


def _read_table(path: Path) -> Iterator[Row | UnreadableRow]:
    csv.field_size_limit(MAX_ROW_BYTES)
    with _open(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as file:
        header_line = file.readline(MAX_ROW_BYTES)
        delimiter = _find_delimiter(header_line, "\t" if format_of(path) == ".tsv" else ",")
        reader = csv.reader(chain([header_line], file), delimiter=delimiter, strict=True)
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


def _find_delimiter(header: str, usual: str) -> str:
    """Return the usual delimiter, unless the header has another one and not this one."""
    return next((delimiter for delimiter in (usual, ",", ";", "\t") if delimiter in header), usual)


def _read_parquet(path: Path) -> Iterator[Row | UnreadableRow]:
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_choose_batch_size(file.metadata)):
            for value in batch.to_pylist():
                number += 1
                try:
                    row = {name: _convert_value(name, cell) for name, cell in value.items() if cell is not None}
                except RowError as error:
                    yield _to_unreadable(number, error)
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
        raise RowError("value", f"the column {name} has the type {type(value).__name__}: convert it to strings")
    return value


_READERS = {
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".parquet": _read_parquet,
}
