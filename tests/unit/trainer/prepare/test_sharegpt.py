"""Conversations in the form of ShareGPT."""

from typing import Any

import pytest
from finetune_trainer.prepare.row_issues import RowError
from finetune_trainer.prepare.sharegpt import rewrite_turns


def turns(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"from": role, "value": value} for role, value in pairs]


def call(identifier: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_the_spellings_of_roles_and_fields() -> None:
    assert rewrite_turns(
        [
            {"role": "system", "content": "s"},
            {"from": "human", "value": "a"},
            {"from": "GPT", "value": "b", "weight": None},
            {"from": "user", "text": "c"},
            {"from": "chatgpt", "value": "d", "weight": 0},
        ],
        "conversations",
    ) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "weight": 0},
    ]


@pytest.mark.parametrize(
    ("calls", "observations", "contents"),
    [
        ('{"name": "f", "arguments": {"x": 1}}', ["[2 copies]"], ["[2 copies]"]),
        ({"name": "f", "parameters": {"x": 1}}, [{"n": 2}], ['{"n": 2}']),
        ('[{"name": "f", "arguments": {"x": 1}}, {"name": "g"}]', ['["a", {"b": "ö"}]'], ["a", '{"b": "ö"}']),
        ('[{"name": "f", "arguments": {"x": 1}}, {"name": "g"}]', ["a", "b"], ["a", "b"]),
    ],
)
def test_calls_and_their_results_are_turns_of_their_own(
    calls: Any, observations: list[Any], contents: list[str]
) -> None:
    results = [("observation", value) for value in observations]
    rewritten = rewrite_turns(turns(("human", "?"), ("function_call", calls), *results, ("gpt", "!")), "conversations")
    made = [call("call_1_0", "f", x=1), call("call_1_1", "g")][: len(contents)]
    assert rewritten[1] == {"role": "assistant", "content": None, "tool_calls": made}
    assert [(message["tool_call_id"], message["content"]) for message in rewritten[2:-1]] == [
        (answered["id"], content) for answered, content in zip(made, contents, strict=True)
    ]
    assert rewritten[-1] == {"role": "assistant", "content": "!"}


def test_calls_that_are_marked_in_an_answer_become_calls_if_a_tool_answers() -> None:
    text = 'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
    rewritten = rewrite_turns(
        turns(("human", "?"), ("gpt", text), ("tool", "<tool_response>\n7\n</tool_response>"), ("gpt", "7.")),
        "conversations",
    )
    assert rewritten[1:3] == [
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call("call_1_0", "f", x=1)]},
        {"role": "tool", "content": "7", "tool_call_id": "call_1_0"},
    ]
    assert rewrite_turns(turns(("human", "?"), ("gpt", text)), "conversations")[1]["content"] == text


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        (("narrator", "x"), r"conversations\[0\].from \"narrator\" is not one of system, human"),
        (("function_call", "not JSON"), r"conversations\[0\] is no call of a tool: write"),
        (("function_call", '{"arguments": {}}'), r"conversations\[0\] is no call of a tool"),
    ],
)
def test_a_turn_that_cannot_be_read_is_named(turn: tuple[str, str], problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        rewrite_turns(turns(turn), "conversations")
