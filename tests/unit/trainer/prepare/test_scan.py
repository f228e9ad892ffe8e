"""The scan of a data source: rows are counted, errors located, examples written."""

import json
from pathlib import Path

import pytest
from finetune_api.conditions import Reason
from finetune_api.training import Method, Sft
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.data_quality import check_rows
from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.row_reader import RowReader
from finetune_trainer.prepare.scan import detect_source_format, scan_source
from finetune_trainer.prepare.token_counts import TokenCounts
from finetune_trainer.prepared import read_examples
from unit.scans import ANSWER, URI, chat, lines, scan

READER = RowReader(Method(sft=Sft()))


def test_wrong_rows_are_counted_and_located(tmp_path: Path) -> None:
    source = scan(
        tmp_path, [b"\xef\xbb\xbf" + json.dumps(chat(1)).encode(), b"", *[b"bad"] * 9, chat("endless"), chat(2)]
    )
    assert (source.rows, source.invalid_rows, list(source.row_numbers)) == (12, 10, [1, 13])
    assert source.errors.counts == {"json": 9, "truncated": 1}
    with pytest.raises(StageError) as error:
        check_rows(source)
    assert str(error.value).startswith(f"{URI}: 10 of 12 lines are wrong: line 3: not JSON")
    assert str(error.value).endswith("and 5 more")
    assert error.value.reason == Reason.DATASET_INVALID


def test_the_location_names_the_file_if_there_are_several(tmp_path: Path) -> None:
    source = scan(tmp_path, [chat(1)], [chat(2), b"bad", chat(3)])
    ((location, message),) = source.errors.listed["json"]
    assert location == "part-2.jsonl line 2"
    assert message == "not JSON: Expecting value (column 1): write one JSON object per line"
    assert [source.locate(index) for index in range(3)] == [
        "part-1.jsonl line 1",
        "part-2.jsonl line 1",
        "part-2.jsonl line 3",
    ]


def test_the_first_row_determines_the_format_of_all(tmp_path: Path) -> None:
    source = scan(tmp_path, [{"text": "one", "id": 1}, chat(2), {"text": "three"}])
    assert (source.format, source.ignored_fields) == ("Text", {"id": 1})
    ((location, message),) = source.errors.listed["format"]
    assert location == "line 2"
    assert message.startswith("the fields messages match the format Chat, but the data has the format Text: use one")
    named = scan(tmp_path, [{"prompt": "a", "completion": "b", "text": "c"}], name="Text")
    assert list(read_examples(named.path)) == [{"text": "c"}]


def test_the_first_readable_row_determines_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([b"bad", {"question": "x"}]))
    (tmp_path / "b.jsonl").write_bytes(lines([chat(1)]))
    assert detect_source_format(URI, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], READER) == "Chat"
    assert detect_source_format(URI, [tmp_path / "a.jsonl"], READER) is None


def test_a_bug_is_not_reported_as_an_error_in_the_data(tmp_path: Path) -> None:
    def fail(_examples: list[Example]) -> list[TokenCounts]:
        raise ValueError("a bug")

    (tmp_path / "a.jsonl").write_bytes(lines([chat(1)]))
    with pytest.raises(ValueError, match="a bug"):
        scan_source(URI, [tmp_path / "a.jsonl"], "Chat", READER, fail, tmp_path / "out.jsonl")


def test_a_file_with_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(StageError, match=r"pvc://data/train.jsonl: a.txt: the name must end in"):
        detect_source_format(URI, [tmp_path / "a.txt"], READER)


def test_data_with_warnings_is_used(tmp_path: Path) -> None:
    source = scan(tmp_path, [chat("odd"), chat(1)])
    assert source.warnings.listed["odd"] == [("line 1", "odd")]
    assert source.warnings.counts == {"odd": 1, "system": 2}
    check_rows(source)


def test_a_row_at_any_depth_is_read_or_refused(tmp_path: Path) -> None:
    rows = [b'{"prompt": "x", "answer": ' + b"[" * depth + b"]" * depth + b"}" for depth in range(800, 1200, 5)]
    source = scan(tmp_path, rows, name="Prompt", method="grpo")
    messages = [message for _, message in source.errors.listed["json"]]
    assert len(messages) + len(source.row_numbers) == len(rows)
    assert all("nested too deeply" in message for message in messages)


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        (b'{"text": "\\ud800"}', "encoding", "only one half of a character (\\ud800): write both halves"),
        (b'{"text": "x", "text": "y"}', "json", "an object has the field 'text' twice, remove one"),
        (b'{"text": NaN}', "json", "NaN is not a JSON value"),
        (b'{"prompt": "x", "answer": 1e999}', "value", "answer is NaN or infinite: remove the field"),
        (b'{"text": ' + b"1" * 5000 + b"}", "json", "a number has too many digits, write it as a string"),
    ],
)
def test_a_row_that_json_cannot_represent_is_refused(tmp_path: Path, row: bytes, kind: str, message: str) -> None:
    is_prompt = b"prompt" in row
    source = scan(tmp_path, [row], name="Prompt" if is_prompt else "Text", method="grpo" if is_prompt else "sft")
    assert message in source.errors.listed[kind][0][1]


def test_examples_have_arguments_as_objects(tmp_path: Path) -> None:
    function = {"name": "find", "arguments": '{"id": 1}'}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    answer = {"role": "tool", "content": "x", "tool_call_id": "c"}
    tools = [{"type": "function", "function": {"name": "find"}}]
    source = scan(tmp_path, [{"messages": [call, answer, ANSWER], "tools": tools}])
    (example,) = read_examples(source.path)
    assert example["messages"][0]["tool_calls"][0]["function"]["arguments"] == {"id": 1}
    with pytest.raises(StageError, match="is missing"):
        list(read_examples(tmp_path / "none.jsonl"))
