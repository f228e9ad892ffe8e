"""What chat templates leave out of prompts."""

from pathlib import Path
from typing import Any

import pytest
from finetune_pod.template import ChatTemplate
from finetune_trainer.prepare.omissions import find_omissions, find_omitted
from model.tiny import CHAT_TEMPLATE, make_tiny_tokenizer

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "good day"}
PROPERTIES = {"id": {"type": "string", "description": "which"}, "deep": {"type": "boolean"}}
FIND = {
    "type": "function",
    "function": {"name": "find", "description": "finds it", "parameters": {"type": "object", "properties": PROPERTIES}},
}
NAMES = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"


@pytest.mark.parametrize(
    ("tools", "location"),
    [
        (CHAT_TEMPLATE, ""),
        ("", "tools[0]"),
        (NAMES, "tools[0].function.description"),
        (NAMES + "{{ tools[0].function.description }}", "tools[0].function.parameters.properties.id"),
        (
            NAMES + "{{ tools[0].function.description }}{{ (tools[0].function.parameters.properties | list)[0] }}",
            "tools[0].function.parameters.properties.deep",
        ),
    ],
)
def test_every_part_of_a_tool_is_looked_for(tmp_path: Path, tools: str, location: str) -> None:
    template = ChatTemplate(make_tiny_tokenizer(tmp_path, tools + "{{ messages[0].content }}"))
    example: dict[str, Any] = {"messages": [USER, ANSWER], "tools": [FIND]}
    warnings = list(find_omissions(template, example, "hello", 1))
    assert [warning.message.split(", ")[0].rpartition(" ")[2] for warning in warnings] == (
        [location] if location else []
    )


def test_parts_are_looked_for_in_their_order() -> None:
    messages = [{"role": "system", "content": "be kind"}, USER, ANSWER, {"role": "user", "content": "hello"}]
    assert find_omitted(messages, "messages", "hello good day hello be kind") == ""
    assert find_omitted(messages, "messages", "hello good day be kind") == "messages[3].content"
    assert find_omitted(messages, "messages", "hello hello be kind") == "messages[2].content"


def test_earlier_reasoning_may_be_left_out() -> None:
    for message in (ANSWER | {"reasoning_content": "be kind"}, {**ANSWER, "content": "<think>be kind</think>good day"}):
        assert find_omitted([USER, message], "messages", "hello good day") == ""


def test_the_strings_of_a_call_are_looked_for() -> None:
    function = {"name": "find", "arguments": {"id": 'a"b', "deep": True}}
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": function}]}
    assert find_omitted([message], "messages", 'find {"id": "a\\"b"}') == ""
    assert find_omitted([message], "messages", "find {}") == "messages[0].tool_calls[0]"
