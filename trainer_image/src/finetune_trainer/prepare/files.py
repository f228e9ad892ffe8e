"""Reads rows out of data files, one at a time: JSONL, JSON, CSV, TSV and Parquet, plain or compressed.

It knows files, not what the rows mean: that is the business of `formats`.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.data_files import COMPRESSIONS, format_of
from finetune_trainer.prepare.row_issues import kind_of

LONGEST_ROW = 1 << 22
"""Bytes of a row at most: a longer one is a mistake, and would not fit into any model's context."""
_BOM = b"\xef\xbb\xbf"
_BATCH = 1024
"""Rows of a Parquet file that are read at a time, if they are short."""
_BATCH_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Row:
    """A row and where it stands: the number of its line, or of itself where the file has no lines; from 1."""

    number: int
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row, for the author of the file. `kind` is the same for all mistakes of its sort."""

    number: int
    kind: str
    message: str


class UnknownFileError(Exception):
    """A file whose name tells of no known format."""


def read_rows(path: Path) -> Iterator[Row | Problem]:
    """Yield the rows of a file in their order; a row that cannot be read is yielded as its problem.

    What makes the rest unreadable (a damaged archive, a file cut short) is the last that is yielded.

    Raises:
        UnknownFileError: the name tells of no known format; the message says which there are.
    """
    read = _READERS.get(format_of(path))
    if read is None:
        known = ", ".join(suffix for suffix in _READERS if suffix != ".ndjson")
        raise UnknownFileError(f"{path.name}: the name must end in {known}, plain or with {', '.join(COMPRESSIONS)}")
    number = 0
    try:
        for row in read(path):
            number = row.number
            yield row
    except _damage() as error:
        yield Problem(number + 1, "damaged", f"the file cannot be read further, write it anew: {_first_line(error)}")


def _damage() -> tuple[type[Exception], ...]:
    import ijson
    import pyarrow as pa

    return (OSError, EOFError, pa.ArrowException, csv.Error, UnicodeDecodeError, ijson.JSONError)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _open(path: Path) -> io.BufferedReader:
    """Open a file for reading, through its decompression; memory does not grow with the file."""
    import pyarrow as pa

    compression = COMPRESSIONS.get(path.suffix.lower())
    return io.BufferedReader(pa.input_stream(str(path), compression=compression), 1 << 20)


def _read_jsonl(path: Path) -> Iterator[Row | Problem]:
    with _open(path) as file:
        number = 0
        while raw := file.readline(LONGEST_ROW + 1):
            number += 1
            if len(raw) > LONGEST_ROW:
                while not raw.endswith(b"\n") and (raw := file.readline(LONGEST_ROW)):
                    pass
                yield Problem(number, "long", f"more than {LONGEST_ROW} bytes: divide it into several rows")
                continue
            line = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
            if line:
                yield _parse_line(number, line)


def _parse_line(number: int, line: bytes) -> Row | Problem:
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_build_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return Problem(number, "encoding", f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8")
    except json.JSONDecodeError as error:
        hint = "write one object on each line"
        return Problem(number, "json", f"not JSON: {error.msg} (column {error.colno}): {hint}")
    except RecursionError:
        return Problem(number, "json", "not JSON that can be read: nested too deeply, write it with fewer levels")
    except _UnreadableError as error:
        return Problem(number, "json", f"not JSON that can be read: {error}")
    except ValueError:
        # Python reads integers of 4,300 digits at most.
        return Problem(number, "json", "not JSON that can be read: a number of so many digits, write it as a text")
    return _check_object(number, value)


class _UnreadableError(Exception):
    """A value that cannot be taken as it is."""


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; one of two fields of the same name would be lost without a word."""
    built = dict(pairs)
    if len(built) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _UnreadableError(f"the field {twice[:30]!r} stands twice in an object: keep one")
    return built


def _refuse_constant(name: str) -> None:
    raise _UnreadableError(f"JSON has no {name}: leave the field out")


def _check_object(number: int, value: Any) -> Row | Problem:
    if not isinstance(value, dict):
        return Problem(
            number, "object", f'{kind_of(value)}, not an object with named fields: write {{"messages": [...]}}'
        )
    return Row(number, value)


def _read_json(path: Path) -> Iterator[Row | Problem]:
    import ijson

    with _open(path) as file:
        start = file.peek(64).removeprefix(_BOM).lstrip()[:1]
        if start != b"[":
            yield Problem(1, "json", "not a list of objects: begin with [, or name the file .jsonl")
            return
        if file.peek(3).startswith(_BOM):
            file.read(len(_BOM))
        for number, value in enumerate(ijson.items(file, "item", use_float=True), 1):
            yield _check_object(number, value)


def _read_csv(path: Path, delimiter: str = ",") -> Iterator[Row | Problem]:
    csv.field_size_limit(LONGEST_ROW)
    with _open(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(reader, [])
        repeated = next((name for name in header if header.count(name) > 1 or not name.strip()), None)
        if repeated is not None:
            yield Problem(1, "header", f"the column {repeated[:30]!r} has no name of its own: give each one")
            return
        begins = reader.line_num + 1
        try:
            for values in reader:
                if not all(value.isascii() or _is_text(value) for value in values):
                    yield Problem(begins, "encoding", "not UTF-8: save the file as UTF-8")
                elif len(values) == len(header):
                    yield Row(begins, dict(zip(header, values, strict=True)))
                elif values:
                    counts = f"{len(values)} columns, the header has {len(header)}"
                    yield Problem(begins, "columns", f"{counts}: put texts with commas or line ends in double quotes")
                begins = reader.line_num + 1
        except csv.Error as error:
            hint = "put the whole text in double quotes, and one inside it twice"
            yield Problem(begins, "quotes", f"the file cannot be read further: {error}: {hint}")


def _is_text(value: str) -> bool:
    """Tell whether a value was UTF-8: bytes that were not stand in it as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_tsv(path: Path) -> Iterator[Row | Problem]:
    return _read_csv(path, "\t")


def _read_parquet(path: Path) -> Iterator[Row | Problem]:
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_choose_batch(file.metadata)):
            for value in batch.to_pylist():
                number += 1
                try:
                    row = {name: _take_value(name, one) for name, one in value.items() if one is not None}
                except _UnreadableError as error:
                    yield Problem(number, "value", str(error))
                else:
                    yield Row(number, row)


def _choose_batch(metadata: Any) -> int:
    """Choose how many rows to read at a time, so that long ones do not fill the memory."""
    size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    return int(max(1, min(_BATCH, _BATCH_BYTES * metadata.num_rows // max(size, 1))))


def _take_value(name: str, value: Any) -> Any:
    """Return a column's value without fields that are null: Parquet gives each row every field that any row has."""
    if isinstance(value, dict):
        return {key: _take_value(name, one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_take_value(name, one) for one in value]
    if value is not None and not isinstance(value, str | int | float):
        raise _UnreadableError(f"the column {name} holds a {type(value).__name__}, which JSON has not: make it a text")
    return value


_READERS = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
