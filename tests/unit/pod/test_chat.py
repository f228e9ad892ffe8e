"""A conversation as text."""

from typing import Any

import pytest
from finetune_pod.chat import TemplateError, parse_arguments, render_conversation

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "good day"}


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


def test_a_turn_of_weight_0_is_not_learnt() -> None:
    rendered = render_conversation([USER, ANSWER | {"weight": 0}, USER, ANSWER | {"weight": 1}], plain)
    assert [rendered.text[:start].count(";") for start, _ in rendered.spans] == [3]


def test_arguments_become_objects_once() -> None:
    function = {"name": "find", "arguments": '{"id": 1}'}
    once = parse_arguments([{"role": "assistant", "tool_calls": [{"id": "c", "function": function}]}])
    assert once[0]["tool_calls"][0]["function"]["arguments"] == {"id": 1}
    assert parse_arguments(once) == once
