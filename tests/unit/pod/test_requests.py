"""Messages and tools as vLLM passes them to a chat template; tests/contract compares them with vLLM's own."""

from typing import Any

import pytest
from finetune_pod.requests import (
    find_last_answer,
    get_parts,
    get_reasoning,
    normalize_messages,
    normalize_tools,
    parse_arguments,
)

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "good day"}


def normalize(*messages: dict[str, Any], parts: bool = False, developer: bool = False) -> list[dict[str, Any]]:
    return normalize_messages(list(messages), has_content_parts=parts, has_developer=developer)


def test_a_content_is_text_or_parts() -> None:
    listed = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert normalize(listed, USER) == [{"role": "user", "content": "a\nb"}, USER]
    assert normalize(listed, parts=True) == [listed]
    assert normalize(USER, parts=True) == [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    assert normalize({"role": "tool", "content": "x", "tool_call_id": "c"}, parts=True)[0]["content"] == "x"


def test_a_missing_content_is_empty() -> None:
    assert normalize({"role": "assistant", "content": None}) == [{"role": "assistant", "content": ""}]
    assert normalize({"role": "assistant", "content": None}, parts=True) == [{"role": "assistant", "content": []}]


def test_arguments_are_objects_before_the_name() -> None:
    call = {"type": "function", "id": "c", "function": {"name": "find", "arguments": '{"b": 1, "a": 2}'}}
    ((normalized,),) = (message["tool_calls"] for message in normalize(ANSWER | {"tool_calls": [call]}))
    assert list(normalized) == ["id", "function", "type"]
    assert list(normalized["function"].items()) == [("arguments", {"b": 1, "a": 2}), ("name", "find")]


@pytest.mark.parametrize("arguments", ["", "not JSON", "[1]", None])
def test_arguments_that_are_no_object_become_an_empty_one(arguments: str | None) -> None:
    call = {"type": "function", "id": "c", "function": {"name": "find", "arguments": arguments}}
    (message,) = normalize(ANSWER | {"tool_calls": [call]})
    assert message["tool_calls"][0]["function"]["arguments"] == {}


def test_a_developer_becomes_the_system_message_of_templates_without_that_role() -> None:
    messages = [USER, {"role": "developer", "content": "b"}, {"role": "system", "content": "a"}, ANSWER]
    assert normalize(*messages) == [{"role": "system", "content": "b\n\na"}, USER, ANSWER]
    assert [message["role"] for message in normalize(*messages, developer=True)] == [
        "user",
        "developer",
        "system",
        "assistant",
    ]
    assert normalize({"role": "developer", "content": "b"}, USER) == [{"role": "system", "content": "b"}, USER]


def test_reasoning_has_both_of_its_names() -> None:
    for field in ("reasoning", "reasoning_content"):
        (message,) = normalize(ANSWER | {field: "because", "weight": 1})
        assert message == ANSWER | {"reasoning": "because", "reasoning_content": "because"}
    assert get_reasoning(ANSWER) is None


def test_tools_have_the_keys_of_a_request() -> None:
    tools = [{"type": "function", "extra": 1, "function": {"strict": True, "parameters": {}, "name": "f", "x": 1}}]
    (tool,) = normalize_tools(tools) or []
    assert list(tool) == ["type", "function"]
    assert list(tool["function"].items()) == [
        ("name", "f"),
        ("description", None),
        ("parameters", {}),
        ("strict", True),
    ]
    assert normalize_tools([]) is None


def test_arguments_are_parsed_once() -> None:
    function = {"name": "find", "arguments": '{"id": 1}'}
    once = parse_arguments([{"role": "assistant", "tool_calls": [{"id": "c", "function": function}]}])
    assert once[0]["tool_calls"][0]["function"]["arguments"] == {"id": 1}
    assert parse_arguments(once) == once


def test_the_last_answer_need_not_be_the_last_message() -> None:
    assert find_last_answer([USER, ANSWER, USER, ANSWER, USER]) == 3
    with pytest.raises(ValueError, match="empty"):
        find_last_answer([USER])


def test_the_parts_of_a_content_are_texts() -> None:
    assert (get_parts("a"), get_parts(None)) == (["a"], [])
    assert get_parts(["a", {"type": "text", "text": "b"}]) == ["a", "b"]
