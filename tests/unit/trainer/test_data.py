"""Every check of the data, with the message that its author reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_api.chat import TemplateError, parse_arguments, render_conversation
from finetune_api.conditions import Reason
from finetune_api.reports import ExitCode
from finetune_trainer.conversations import LineError, parse_conversation
from finetune_trainer.dataset import (
    DataFile,
    check_files,
    find_leaks,
    question_of,
    read_file,
    read_prepared,
    split,
    write_conversations,
)
from finetune_trainer.failures import StageError, diagnose
from hypothesis import given
from hypothesis import strategies as st

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "good day"}
TOOL = {
    "type": "function",
    "function": {"name": "find", "parameters": {"type": "object", "required": ["id"], "properties": {"id": {}}}},
}


def call(arguments: Any = '{"id": 1}', name: str = "find") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}


def line(*messages: Any, **row: Any) -> bytes:
    return json.dumps({"messages": list(messages), **row}).encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"not json", "not JSON: Expecting value"),
        (b"\xff", "not UTF-8 (byte 1): save the file as UTF-8"),
        (b"[1]", "a list, not an object"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "messages is missing or empty"),
        (line(), "messages is missing or empty"),
        (line(USER, ANSWER, messages_=1), "unknown field 'messages_'"),
        (line(USER), "no message of role assistant"),
        (line("hello"), "messages[0] is a str, not an object"),
        (line({"role": "asistant", "content": "x"}), "messages[0].role 'asistant' is not one of"),
        (line(USER, {"role": "assistant"}), "messages[1].content must be a string"),
        (line(USER, {"role": "assistant", "content": ""}), "messages[1].content is empty"),
        (line(USER, ANSWER | {"mood": 1}), "messages[1] has an unknown field 'mood'"),
        (line(USER | {"tool_calls": []}, ANSWER), "only the assistant calls tools"),
        (line(USER, call()), "'find' is not declared in tools"),
        (line(USER, call("{"), tools=[TOOL]), "arguments is not a string of JSON"),
        (line(USER, call({"id": 1}), tools=[TOOL]), "arguments is not a string of JSON"),
        (line(USER, call("{}"), tools=[TOOL]), "'id' is a required property"),
        (line(USER, call(), tools=[TOOL]), "the tool call 'c' has no answer"),
        (line(USER, call(), ANSWER, tools=[TOOL]), "has no answer before it"),
        (line({"role": "tool", "content": "x", "tool_call_id": "c"}, ANSWER), "answers no open tool call"),
        (line(USER, ANSWER, tools={}), "tools is not a list"),
        (line(USER, ANSWER, tools=[{"type": "function"}]), "tools[0] is not"),
        (
            line(USER, ANSWER, tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": 1}}}]),
            "schema",
        ),
    ],
)
def test_a_wrong_line_says_what_is_wrong(raw: bytes, message: str) -> None:
    with pytest.raises(LineError) as error:
        parse_conversation(raw)
    assert message in str(error.value)


def test_a_right_line_with_tools_is_kept_whole() -> None:
    answer = {"role": "tool", "content": "found", "tool_call_id": "c"}
    raw = line(USER, call(), answer, ANSWER, tools=[TOOL])
    assert parse_conversation(raw) == {"messages": [USER, call(), answer, ANSWER], "tools": [TOOL]}


@given(st.binary(max_size=200))
def test_no_line_is_a_traceback(raw: bytes) -> None:
    try:
        parse_conversation(raw)
    except LineError as error:
        assert str(error)


def test_wrong_lines_are_counted_and_named_with_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + line(USER, ANSWER) + b"\n\nbad\n" * 9 + line(USER, ANSWER) + b"\n")
    data = read_file(file, "pvc://data/data.jsonl")
    assert (data.read, data.wrong, data.lines) == (11, 9, [1, 28])
    with pytest.raises(StageError) as error:
        check_files([data])
    assert str(error.value).startswith("pvc://data/data.jsonl: 9 of 11 lines are wrong: line 3: not JSON")
    assert str(error.value).endswith("and 4 more")
    assert error.value.code == ExitCode.BAD_DATA


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(StageError, match="is empty"):
        check_files([DataFile("pvc://data/none")])


def chat(question: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, ANSWER]}


@given(st.lists(st.integers(0, 60), min_size=6, max_size=80), st.floats(0.01, 0.5), st.integers(0, 9))
def test_a_split_loses_nothing_and_leaks_nothing(numbers: list[int], fraction: float, seed: int) -> None:
    conversations = [chat(str(number)) for number in numbers]
    if len(set(numbers)) < 3:
        with pytest.raises(StageError, match="cannot be split"):
            split(conversations, fraction, seed)
        return
    train, heldout = split(conversations, fraction, seed)
    assert sorted(map(question_of, train + heldout)) == sorted(map(question_of, conversations))
    assert not {question_of(one) for one in train} & {question_of(one) for one in heldout}
    assert train
    assert heldout
    assert split(conversations, fraction, seed) == (train, heldout)


def test_a_leak_names_both_lines() -> None:
    train = DataFile("train", [chat("a"), chat("b")], [1, 2])
    heldout = DataFile("heldout", [chat("c"), chat("b")], [1, 2])
    find_leaks(train, heldout)
    assert heldout.errors == [(2, "the same question is in train line 2: it proves nothing")]


def test_prepared_data_has_arguments_as_objects(tmp_path: Path) -> None:
    write_conversations(tmp_path / "data" / "train.jsonl", [{"messages": [USER, call()]}])
    (prepared,) = read_prepared(tmp_path / "data" / "train.jsonl")
    assert prepared["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"id": 1}
    with pytest.raises(StageError, match="is missing"):
        list(read_prepared(tmp_path / "none.jsonl"))


def plain(messages: list[dict[str, Any]], opening: bool) -> str:
    text = "".join(f"<{one['role']}>{one['content']};" for one in messages)
    return text + "<assistant>" if opening else text


def test_the_assistants_turns_are_found_in_the_text() -> None:
    rendered = render_conversation([USER, ANSWER, USER, ANSWER], plain)
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["good day;", "good day;"]


def test_a_template_that_renders_turns_differently_is_refused() -> None:
    with pytest.raises(TemplateError, match="differently"):
        render_conversation([USER, ANSWER], lambda messages, opening: f"{len(messages)}{opening}")
    with pytest.raises(TemplateError, match="fails: no roles"):
        render_conversation([USER, ANSWER], lambda _messages, _opening: (_ for _ in ()).throw(ValueError("no roles")))


def test_arguments_become_objects_once() -> None:
    once = parse_arguments([call()])
    assert parse_arguments(once) == once


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), Reason.STORAGE_FULL),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried"), Reason.OUT_OF_MEMORY),
        (PermissionError(13, "denied"), Reason.ACCESS_DENIED),
        (KeyError("x"), Reason.TRAINING_FAILED),
    ],
)
def test_failures_have_reasons(error: Exception, reason: Reason) -> None:
    assert diagnose(error, Reason.TRAINING_FAILED).reason == reason
