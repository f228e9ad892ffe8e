"""Every kind of data file, whole and broken, row by row."""

import bz2
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finetune_trainer.data_files import FORMATS
from finetune_trainer.prepare.files import (
    _READERS,
    Row,
    UnknownFileError,
    UnreadableRow,
    read_rows,
    unit_of,
)
from finetune_trainer.prepare.json_rows import MAX_ROW_BYTES
from hypothesis import given
from hypothesis import strategies as st

ROWS: list[dict[str, Any]] = [
    {"prompt": "a, b", "completion": "line one\nline two"},
    {"prompt": "é", "completion": '"quoted"'},
]


def write(path: Path, content: bytes) -> list[Row | UnreadableRow]:
    path.write_bytes(content)
    return list(read_rows(path))


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[dict[str, str]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize(
    ("name", "content", "numbers"),
    [
        ("a.jsonl", lines(ROWS), [1, 2]),
        ("a.ndjson", b"\xef\xbb\xbf" + lines(ROWS[:1]) + b"\n\n" + lines(ROWS[1:]).strip(), [1, 4]),
        ("A.JSONL.GZ", gzip.compress(lines(ROWS), mtime=0), [1, 2]),
        ("a.jsonl.bz2", bz2.compress(lines(ROWS)), [1, 2]),
        ("a.jsonl.zst", pa.compress(lines(ROWS), codec="zstd", asbytes=True), [1, 2]),
        ("a.json", json.dumps(ROWS, indent=1).encode(), [1, 2]),
        ("a.json", b"\xef\xbb\xbf  " + json.dumps(ROWS).encode(), [1, 2]),
        ("a.csv", table(ROWS), [2, 4]),
        ("a.csv.gz", gzip.compress(b"\xef\xbb\xbf" + table(ROWS), mtime=0), [2, 4]),
        ("a.tsv", table(ROWS, "\t"), [2, 4]),
        ("a list.jsonl", json.dumps(ROWS).encode(), [1, 2]),
        ("lines.json", lines(ROWS), [1, 2]),
        ("CRLF.jsonl", lines(ROWS).replace(b"\n", b"\r\n") + b"\r\n", [1, 2]),
        ("CRLF.json", b"\xef\xbb\xbf" + json.dumps(ROWS, indent=1).encode().replace(b"\n", b"\r\n"), [1, 2]),
        ("semicolons.csv", b"\xef\xbb\xbf" + table(ROWS, ";") + b"\r\n", [2, 4]),
        ("tabs.csv", table(ROWS, "\t"), [2, 4]),
        ("commas.tsv", table(ROWS), [2, 4]),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(name: str, content: bytes, numbers: list[int], tmp_path: Path) -> None:
    assert write(tmp_path / name, content) == [Row(number, row) for number, row in zip(numbers, ROWS, strict=True)]


def test_a_header_with_one_column_leaves_the_usual_delimiter(tmp_path: Path) -> None:
    assert write(tmp_path / "a.csv", b'text\n"one; two, three"\n') == [Row(2, {"text": "one; two, three"})]


def test_a_header_with_commas_and_semicolons_has_commas(tmp_path: Path) -> None:
    assert write(tmp_path / "a.csv", b"prompt,a;b\n1,2\n") == [Row(2, {"prompt": "1", "a;b": "2"})]


@pytest.mark.parametrize(
    ("name", "content", "unit"),
    [
        ("a.jsonl", lines(ROWS), "line"),
        ("a.jsonl", b" [\n", "row"),
        ("a.json", lines(ROWS), "line"),
        ("a.csv", b"[", "line"),
        ("a.parquet", b"PAR1", "row"),
        ("a.jsonl.gz", b"damaged", "line"),
    ],
)
def test_rows_are_called_lines_where_each_has_its_own(name: str, content: bytes, unit: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert unit_of(tmp_path / name) == unit


def test_a_list_may_be_longer_than_the_part_that_is_in_memory(tmp_path: Path) -> None:
    rows = [{"text": f"{number} é " + "x" * (MAX_ROW_BYTES // 3)} for number in range(20)]
    for indent in (1, None):
        content = json.dumps(rows, ensure_ascii=False, indent=indent)
        assert [row.value for row in write(tmp_path / "a.json", content.encode()) if isinstance(row, Row)] == rows
        content = content.removesuffix("]").rstrip().removesuffix("}") + "nonsense"
        with pytest.raises(json.JSONDecodeError) as expected:
            json.loads(content)
        last = write(tmp_path / "a.json", content.encode())[-1]
        assert isinstance(last, UnreadableRow)
        assert last.number == 20
        assert f"(line {expected.value.lineno}, column {expected.value.colno})" in last.message


def test_parquet_gives_only_the_fields_that_a_row_has(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "tool", "id": "c"}], "n": 1},
    ]
    pq.write_table(
        pa.Table.from_pylist(rows, pa.schema([("messages", pa.list_(MESSAGE)), ("n", pa.int64())])),
        tmp_path / "a.parquet",
    )
    assert list(read_rows(tmp_path / "a.parquet")) == [Row(1, rows[0]), Row(2, rows[1])]


MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("id", pa.string())])


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b"not json", (1, "json", "not JSON: Expecting value (column 1): write one JSON object per line")),
        ("a.jsonl", b"\xff", (1, "encoding", "not UTF-8 (byte 1): save the file as UTF-8")),
        ("a.jsonl", b"[1]", (1, "object", "the row is a number, not an object:")),
        ("a.json", b"[" * 100_000, (1, "json", "the rest of the list cannot be read: cannot parse the JSON: it is")),
        ("a.jsonl", b"x" * (MAX_ROW_BYTES + 1), (1, "long", f"more than {MAX_ROW_BYTES} bytes")),
        ("a.json", b"[1]", (1, "object", "the row is a number, not an object:")),
        ("a.json", b'[{"a": 1}, {"a"', (2, "json", "the rest of the list is not JSON: Expecting ':'")),
        ("a.csv", b"a,a\n1,2\n", (1, "header", "several columns are named 'a': give each")),
        ("a.csv", b"a,\n1,2\n", (1, "header", "a column has no name: give each")),
        ("a.csv", b"a,b\n1\n", (2, "columns", "the row has 1 columns, the header 2")),
        (
            "a.csv",
            b'a,b\n1,"2\n',
            (2, "quotes", "the rest of the file cannot be read: unexpected end of data: put"),
        ),
        ("a.csv", b"a,b\n\xff,2\n", (2, "encoding", "not UTF-8: save the file as UTF-8")),
        ("a.parquet", b"PAR1", (1, "damaged", "the rest of the file cannot be read, create it again:")),
        ("a.jsonl.gz", b"no gzip", (1, "damaged", "the rest of the file cannot be read, create it again:")),
        (
            "a.jsonl.gz",
            gzip.compress(lines(ROWS), mtime=0)[:-9],
            (None, "damaged", "the rest of the file cannot be read, create it again:"),
        ),
    ],
)
def test_an_unreadable_file_or_row_is_named_with_the_reason(
    name: str, content: bytes, problem: tuple[int | None, str, str], tmp_path: Path
) -> None:
    last = write(tmp_path / name, content)[-1]
    assert isinstance(last, UnreadableRow)
    number, kind, message = problem
    assert last.number == (number or last.number)
    assert last.kind == kind
    assert last.message.startswith(message)


def test_a_long_line_is_skipped_and_the_next_one_is_read(tmp_path: Path) -> None:
    rows = write(tmp_path / "a.jsonl", b"x" * (3 * MAX_ROW_BYTES) + b"\n" + lines(ROWS[:1]))
    assert [type(row) for row in rows] == [UnreadableRow, Row]
    assert rows[1].number == 2


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(
        UnknownFileError, match=r"a.txt: the name must end in one of .jsonl, .json, .csv, .tsv, .parquet, optionally"
    ):
        list(read_rows(tmp_path / "a.txt"))


def test_every_format_can_be_read() -> None:
    assert set(_READERS) == set(FORMATS)


@given(
    st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a.csv.zst"]),
    st.binary(max_size=300),
)
def test_any_file_gives_rows_or_messages(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    for row in write(tmp_path_factory.mktemp("any") / name, content):
        assert isinstance(row, Row) or row.message
