"""Scores of single answers: known values."""

from typing import Any

import pytest
from finetune_serving.evaluation.answer_scores import exact_match, json_valid, token_f1, tool_call_valid
from model.tiny import CHAT_TEMPLATE
from unit.tool_templates import HERMES, LLAMA, TOOLS, learn


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (HERMES, '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'),
        (HERMES, 'I ask. <tool_call>{"name":"weather","arguments":{"city": "Oslo"}}</tool_call>'),
        (LLAMA, '{"name": "weather", "parameters": {"city": "Oslo"}}'),
        (CHAT_TEMPLATE, '<|call|>weather {"city": "Oslo"}<|end|>'),
    ],
)
def test_tool_calls_are_parsed_as_the_chat_template_writes_them(template: str, answer: str) -> None:
    tool_format = learn(template)
    assert tool_format is not None
    assert tool_call_valid(answer, TOOLS, tool_format) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "It rains.",
        '<tool_call>{"name": "tides", "arguments": {"city": "Oslo"}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": 7}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": "Os',
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call><tool_call>{"name": "", 5}',
        '{"name": "weather", "arguments": {"city": "Oslo"}}',
    ],
)
def test_calls_of_undeclared_tools_or_with_wrong_arguments_count_as_0(answer: str) -> None:
    tool_format = learn(HERMES)
    assert tool_format is not None
    assert tool_call_valid(answer, TOOLS, tool_format) == 0


@pytest.mark.parametrize(
    ("answer", "schema", "score"),
    [
        ('{"a": 1}', None, 1),
        ("[1, 2]", None, 1),
        ('"text"', None, 1),
        ("{'a': 1}", None, 0),
        ("NaN", None, 0),
        ('```json\n{"a": 1}\n```', None, 0),
        ("[" * 100_000, None, 0),
        ('{"a": 1}', {"required": ["a"]}, 1),
        ('{"b": 1}', {"required": ["a"]}, 0),
        ("{}", {"$ref": "http://127.0.0.1:1/schema"}, 0),
    ],
)
def test_json_is_valid_without_and_with_a_schema(answer: str, schema: Any, score: float) -> None:
    assert json_valid(answer, schema) == score


def test_answers_are_compared_by_their_words() -> None:
    assert exact_match("The  Kettle!", "kettle") == 1
    assert exact_match("a pot", "kettle") == 0
    # SQuAD's script: 2 words in common of 3 and 2
    assert token_f1("the cat sat down", "A cat sat.") == pytest.approx(0.8)
    assert token_f1("", "cat") == 0
    assert token_f1("the", "a") == 1
