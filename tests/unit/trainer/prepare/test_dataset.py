"""A whole data source: its rows counted, its mistakes named by place, its examples written."""

import json
from pathlib import Path

import pytest
from finetune_api.conditions import Reason
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.dataset import find_format, survey
from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.measure import Measured
from finetune_trainer.prepare.split import check_survey
from finetune_trainer.prepared import read_examples
from unit.surveys import ANSWER, URI, chat, lines, look


def test_wrong_rows_are_counted_and_named_with_their_places(tmp_path: Path) -> None:
    found = look(
        tmp_path, [b"\xef\xbb\xbf" + json.dumps(chat(1)).encode(), b"", *[b"bad"] * 9, chat("endless"), chat(2)]
    )
    assert (found.read, found.wrong, list(found.numbers)) == (12, 10, [1, 13])
    assert found.errors.counts == {"json": 9, "truncated": 1}
    with pytest.raises(StageError) as error:
        check_survey(found)
    assert str(error.value).startswith(f"{URI}: 10 of 12 lines are wrong: line 3: not JSON")
    assert str(error.value).endswith("and 5 more")
    assert error.value.reason == Reason.DATASET_INVALID


def test_with_several_files_the_place_names_the_file(tmp_path: Path) -> None:
    found = look(tmp_path, [chat(1)], [chat(2), b"bad", chat(3)])
    ((place, message),) = found.errors.listed["json"]
    assert place == "part-2.jsonl line 2"
    assert message == "not JSON: Expecting value (column 1): write one object on each line"
    assert [found.place_of(index) for index in range(3)] == [
        "part-1.jsonl line 1",
        "part-2.jsonl line 1",
        "part-2.jsonl line 3",
    ]


def test_the_first_row_tells_the_format_and_the_others_must_have_it(tmp_path: Path) -> None:
    found = look(tmp_path, [{"text": "one", "id": 1}, chat(2), {"text": "three"}])
    assert (found.format, found.ignored) == ("Text", {"id": 1})
    ((place, message),) = found.errors.listed["format"]
    assert place == "line 2"
    assert message.startswith("the fields messages are those of Chat, the data is taken for Text: give rows of one")
    asked = look(tmp_path, [{"prompt": "a", "completion": "b", "text": "c"}], wanted="Text")
    assert list(read_examples(asked.path)) == [{"text": "c"}]


def test_the_first_row_that_can_be_read_tells_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([b"bad", {"question": "x"}]))
    (tmp_path / "b.jsonl").write_bytes(lines([chat(1)]))
    assert find_format(URI, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]) == "Chat"
    assert find_format(URI, [tmp_path / "a.jsonl"]) is None


def test_a_mistake_of_ours_is_raised_as_it_is(tmp_path: Path) -> None:
    def fail(_examples: list[Example]) -> list[Measured]:
        raise ValueError("a bug")

    (tmp_path / "a.jsonl").write_bytes(lines([chat(1)]))
    with pytest.raises(ValueError, match="a bug"):
        survey(URI, [tmp_path / "a.jsonl"], "Chat", lambda example: [example], fail, tmp_path / "out.jsonl")


def test_a_file_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(StageError, match=r"pvc://data/train.jsonl: a.txt: the name must end in"):
        find_format(URI, [tmp_path / "a.txt"])


def test_data_with_warnings_is_used(tmp_path: Path) -> None:
    found = look(tmp_path, [chat("odd"), chat(1)])
    assert found.warnings.listed["odd"] == [("line 1", "odd")]
    assert found.warnings.counts == {"odd": 1, "system": 2}
    check_survey(found)


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        (b'{"text": "\\ud800"}', "encoding", "half of a character (\\ud800) stands alone"),
        (b'{"text": "x", "text": "y"}', "json", "the field 'text' stands twice in an object: keep one"),
        (b'{"text": NaN}', "json", "JSON has no NaN"),
        (b'{"prompt": "x", "answer": ' + b"[" * 950 + b"]" * 950 + b"}", "json", "nested too deeply"),
        (b'{"prompt": "x", "answer": 1e999}', "value", "answer is not a number (NaN, Infinity): leave it out"),
        (b'{"text": ' + b"1" * 5000 + b"}", "json", "a number of so many digits, write it as a text"),
    ],
)
def test_a_row_that_json_cannot_hold_is_refused(tmp_path: Path, row: bytes, kind: str, message: str) -> None:
    is_prompt = b"prompt" in row
    found = look(tmp_path, [row], wanted="Prompt" if is_prompt else "Text", method="grpo" if is_prompt else "sft")
    assert message in found.errors.listed[kind][0][1]


def test_examples_have_arguments_as_objects(tmp_path: Path) -> None:
    function = {"name": "find", "arguments": '{"id": 1}'}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    answer = {"role": "tool", "content": "x", "tool_call_id": "c"}
    tools = [{"type": "function", "function": {"name": "find"}}]
    found = look(tmp_path, [{"messages": [call, answer, ANSWER], "tools": tools}])
    (example,) = read_examples(found.path)
    assert example["messages"][0]["tool_calls"][0]["function"]["arguments"] == {"id": 1}
    with pytest.raises(StageError, match="is missing"):
        list(read_examples(tmp_path / "none.jsonl"))
