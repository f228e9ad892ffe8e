"""The format of tool calls is found in a chat template and parsed in answers."""

import json

import pytest
from finetune_pod.toolcalls import Call
from hypothesis import given
from hypothesis import strategies as st
from unit.tool_templates import HERMES, PYTHONIC, learn


@pytest.mark.parametrize("template", [PYTHONIC, "{{ messages[9].content }}", "no calls here"])
def test_only_a_template_that_writes_calls_as_json_has_a_format(template: str) -> None:
    assert learn(template) is None


def test_an_empty_thought_before_a_call_is_no_part_of_its_format() -> None:
    empty = "{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message.content }}"
    written = learn(HERMES.replace("{{ message.content }}", empty))
    assert written is not None
    call = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    assert written.parse(f"<think>\nIt may rain.\n</think>\n\n{call}\n{call}") == [Call("weather", {})] * 2


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3))
def test_whatever_the_template_writes_is_read_back(arguments: dict[str, str]) -> None:
    written = learn(HERMES)
    assert written is not None
    text = f'<tool_call>\n{{"name": "weather", "arguments": {json.dumps(arguments)}}}\n</tool_call>'
    calls = written.parse(text)
    assert calls is not None
    assert [(call.name, call.arguments) for call in calls] == [("weather", arguments)]
