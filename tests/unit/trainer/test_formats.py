"""What rows mean, in every format, and what each mistake is called."""

import json
from typing import Any

import pytest
from finetune_trainer.formats import detect_format, parse_row, unknown_fields
from finetune_trainer.messages import RowError
from hypothesis import given
from hypothesis import strategies as st

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "good day"}
WORSE = {"role": "assistant", "content": "what?"}
FOUND = {"role": "tool", "content": "found", "tool_call_id": "c"}
TOOL = {
    "type": "function",
    "function": {"name": "find", "parameters": {"type": "object", "required": ["id"], "properties": {"id": {}}}},
}


def call(arguments: Any = '{"id": 1}', name: str = "find") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}


def chat(*messages: Any, **row: Any) -> dict[str, Any]:
    return {"messages": list(messages), **row}


PAIR = {"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]}


@pytest.mark.parametrize(
    ("row", "name", "example"),
    [
        (chat(USER, ANSWER), "Chat", chat(USER, ANSWER)),
        (
            chat(USER, call(), FOUND, ANSWER, tools=[TOOL], parallel_tool_calls=False),
            "Chat",
            chat(USER, call(), FOUND, ANSWER, tools=[TOOL]),
        ),
        ({"messages": json.dumps([USER, ANSWER]), "tools": "[]"}, "Chat", chat(USER, ANSWER)),
        ({"prompt": "hello", "completion": "good day"}, "PromptCompletion", chat(USER, ANSWER)),
        ({"prompt": [USER], "completion": [ANSWER]}, "PromptCompletion", chat(USER, ANSWER)),
        (
            {"prompt": "[1]", "completion": '[{"a": 1}]'},
            "PromptCompletion",
            chat({"role": "user", "content": "[1]"}, {"role": "assistant", "content": '[{"a": 1}]'}),
        ),
        ({"instruction": "hello", "input": "", "output": "good day"}, "Instruction", chat(USER, ANSWER)),
        (
            {"instruction": "add", "input": "1 2", "output": "3", "system": "You count."},
            "Instruction",
            chat(
                {"role": "system", "content": "You count."},
                {"role": "user", "content": "add\n\n1 2"},
                {"role": "assistant", "content": "3"},
            ),
        ),
        ({"text": "once upon a time"}, "Text", {"text": "once upon a time"}),
        ({"prompt": "hello", "chosen": "good day", "rejected": "what?"}, "Preference", PAIR),
        ({"chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, "Preference", PAIR),
        (
            {
                "input": {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": True},
                "preferred_output": [ANSWER],
                "non_preferred_output": [WORSE],
            },
            "Preference",
            PAIR | {"tools": [TOOL]},
        ),
        (
            {"prompt": "hello", "completion": "good day", "label": "True"},
            "UnpairedPreference",
            {"prompt": [USER], "completion": [ANSWER], "label": True},
        ),
        ({"prompt": "hello", "answer": 3}, "Prompt", {"prompt": [USER], "reference": {"answer": 3}}),
    ],
)
def test_every_format_is_told_by_its_fields_and_read(row: dict[str, Any], name: str, example: dict[str, Any]) -> None:
    assert detect_format(row) == name
    assert parse_row(row, detect_format(row)) == example


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        (chat(), "messages", "messages is missing or empty"),
        (chat(USER), "assistant", "no message of role assistant: there is nothing to learn"),
        (chat("hello"), "messages", "messages[0] is a str, not an object"),
        (chat({"role": "asistant", "content": "x"}), "role", "messages[0].role 'asistant' is not one of"),
        (chat({"content": "x"}), "role", "messages[0].role None is not one of"),
        (chat(USER, {"role": "assistant"}), "content", "messages[1].content must be a string (null only beside"),
        (chat(USER, {"role": "assistant", "content": ""}), "content", "messages[1].content is empty"),
        (chat(USER, {"role": "assistant", "content": [1]}), "content", "messages[1].content must be a string"),
        (chat(USER, ANSWER | {"mood": 1}), "field", "messages[1] has an unknown field 'mood'"),
        (chat(USER | {"tool_calls": []}, ANSWER), "tool_calls", "only the assistant calls tools"),
        (chat(USER, ANSWER | {"tool_calls": []}), "tool_calls", "is not a list with calls"),
        (chat(USER, ANSWER | {"tool_calls": [1]}), "tool_calls", "tool_calls[0] is not"),
        (chat(USER, call()), "tool_calls", "'find' is not declared in tools"),
        (chat(USER, call("{"), tools=[TOOL]), "tool_calls", "arguments is not a string of JSON"),
        (chat(USER, call({"id": 1}), tools=[TOOL]), "tool_calls", "arguments is not a string of JSON"),
        (chat(USER, call("{}"), tools=[TOOL]), "tool_calls", "'id' is a required property"),
        (chat(USER, call(), tools=[TOOL]), "tool_calls", "the tool call 'c' has no answer"),
        (chat(USER, call(), ANSWER, tools=[TOOL]), "tool_calls", "has no answer before it"),
        (chat(FOUND, ANSWER), "tool_calls", "answers no open call"),
        (chat(USER, ANSWER, tools={}), "tools", "tools is not a list"),
        (chat(USER, ANSWER, tools=[{"type": "function"}]), "tools", "tools[0] is not"),
        (
            chat(USER, ANSWER, tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": 1}}}]),
            "tools",
            "tools[0].function.parameters is no JSON schema",
        ),
        (chat(USER, ANSWER | {"weight": 0}), "weight", "every message of the assistant has weight 0"),
        (chat(USER, ANSWER | {"weight": 2}), "weight", "messages[1].weight must be 0 or 1"),
        (chat(USER | {"weight": 1}, ANSWER), "weight", "messages[0].weight must be 0 or 1"),
        ({"prompt": "", "completion": "x"}, "content", "prompt is empty"),
        ({"prompt": 1, "completion": "x"}, "messages", "prompt is a int, neither a text nor a list of messages"),
        ({"prompt": "x", "completion": [USER]}, "assistant", "completion does not end with a message of the assistant"),
        ({"instruction": " ", "output": "x"}, "content", "instruction must be a text that is not empty"),
        ({"instruction": "x", "output": None}, "content", "output must be a text that is not empty"),
        ({"instruction": "x", "output": "y", "input": 3}, "content", "input must be a string"),
        ({"text": ""}, "content", "text must be a text that is not empty"),
        ({"prompt": "x", "chosen": "a", "rejected": "a"}, "equal", "chosen and rejected are the same"),
        ({"chosen": "a", "rejected": "b"}, "messages", "prompt is missing or empty"),
        ({"prompt": "x", "chosen": "a", "rejected": [USER]}, "assistant", "rejected does not end with"),
        (
            {"input": "x", "preferred_output": [ANSWER], "non_preferred_output": [WORSE]},
            "messages",
            'input is not {"messages": [...]}',
        ),
        ({"prompt": "x", "completion": "y", "label": "good"}, "label", "label 'good' is neither true nor false"),
        ({"prompt": [USER, ANSWER]}, "assistant", "prompt ends with the assistant"),
        ({"question": "x"}, "format", "the fields question are those of no format (Chat: messages; "),
        ({}, "format", "the fields (none) are those of no format"),
    ],
)
def test_every_mistake_is_named(row: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(RowError) as error:
        parse_row(row, detect_format(row))
    assert message in str(error.value)
    assert error.value.kind == kind


def test_fields_that_are_passed_over_are_known() -> None:
    assert unknown_fields(chat(USER, id=1), "Chat") == {"id"}
    assert unknown_fields({"prompt": "x", "answer": 1}, "Prompt") == set()


message = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(["user", "assistant", "x"]), "content": st.none() | st.text(max_size=3)}
)
values = st.none() | st.integers(0, 1) | st.sampled_from(["", "x", "[", "{}", "true"]) | st.lists(message, max_size=3)
fields = st.sampled_from(["messages", "prompt", "completion", "chosen", "rejected", "label", "text", "tools", "input"])


@given(st.dictionaries(fields, values, max_size=4))
def test_no_row_is_a_traceback(row: dict[str, Any]) -> None:
    try:
        assert parse_row(row, detect_format(row))
    except RowError as error:
        assert error.kind
        assert str(error)
