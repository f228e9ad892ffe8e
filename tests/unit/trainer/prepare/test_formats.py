"""Rows of every format are parsed. tests/bad_inputs has the errors."""

import json
from typing import Any

import pytest
from finetune_trainer.prepare.formats import detect_format, parse_row, unknown_fields
from finetune_trainer.prepare.row_issues import RowError
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


CALLED = {"name": "find", "arguments": '{"id": 1}'}
OLD_CALL = {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": CALLED}]}
OLD_ANSWER = {"role": "function", "name": "find", "content": "found"}
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
        (chat(USER, call({"id": 1}), tools=[TOOL]), "Chat", chat(USER, call({"id": 1}), tools=[TOOL])),
        (
            chat(
                USER, {"role": "assistant", "function_call": CALLED}, OLD_ANSWER, ANSWER, functions=[TOOL["function"]]
            ),
            "Chat",
            chat(USER, OLD_CALL, FOUND | {"name": "find", "tool_call_id": "call_1"}, ANSWER, tools=[TOOL]),
        ),
        (
            chat(
                {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}, ANSWER
            ),
            "Chat",
            chat(
                {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}, ANSWER
            ),
        ),
        (
            chat(USER, ANSWER | {"reasoning_content": "be kind"}),
            "Chat",
            chat(USER, ANSWER | {"reasoning_content": "be kind"}),
        ),
        (
            chat(USER, ANSWER | {"refusal": None, "audio": None, "annotations": [], "tool_calls": None}),
            "Chat",
            chat(USER, ANSWER),
        ),
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
def test_every_format_is_detected_and_parsed(row: dict[str, Any], name: str, example: dict[str, Any]) -> None:
    assert detect_format(row, "dataset.train") == name
    assert parse_row(row, detect_format(row, "dataset.train")) == example


def test_ignored_fields_are_known() -> None:
    assert unknown_fields(chat(USER, id=1), "Chat") == {"id"}
    assert unknown_fields({"prompt": "x", "answer": 1}, "Prompt") == set()


message = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(["user", "assistant", "x"]), "content": st.none() | st.text(max_size=3)}
)
values = st.none() | st.integers(0, 1) | st.sampled_from(["", "x", "[", "{}", "true"]) | st.lists(message, max_size=3)
fields = st.sampled_from(["messages", "prompt", "completion", "chosen", "rejected", "label", "text", "tools", "input"])


@given(st.dictionaries(fields, values, max_size=4))
def test_any_row_is_parsed_or_refused_with_a_message(row: dict[str, Any]) -> None:
    try:
        assert parse_row(row, detect_format(row, "dataset.train"))
    except RowError as error:
        assert error.kind
        assert str(error)
