"""A conversation as text and tokens."""

from typing import Any

import pytest
from finetune_pod.chat import (
    IGNORED_LABEL,
    Rendered,
    TemplateError,
    encode,
    find_last_answer,
    parse_arguments,
    render_conversation,
)

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "good day"}


def plain(messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
    text = "".join(f"<{message['role']}>{message['content']};" for message in messages)
    return text + "<assistant>" if add_generation_prompt else text


def test_the_assistants_turns_are_found_in_the_text() -> None:
    rendered = render_conversation([USER, ANSWER, USER, ANSWER], plain)
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["good day;", "good day;"]


def test_a_template_that_renders_turns_differently_is_refused() -> None:
    with pytest.raises(TemplateError, match="differently"):
        render_conversation([USER, ANSWER], lambda messages, prompt: f"{len(messages)}{prompt}")
    with pytest.raises(TemplateError, match="fails: no roles"):
        render_conversation([USER, ANSWER], lambda _messages, _prompt: (_ for _ in ()).throw(ValueError("no roles")))


def test_a_turn_of_weight_0_is_not_a_target() -> None:
    rendered = render_conversation([USER, ANSWER | {"weight": 0}, USER, ANSWER | {"weight": 1}], plain)
    assert [rendered.text[:start].count(";") for start, _ in rendered.spans] == [3]


def test_arguments_become_objects_once() -> None:
    function = {"name": "find", "arguments": '{"id": 1}'}
    once = parse_arguments([{"role": "assistant", "tool_calls": [{"id": "c", "function": function}]}])
    assert once[0]["tool_calls"][0]["function"]["arguments"] == {"id": 1}
    assert parse_arguments(once) == once


def tokenize(texts: list[str], **_: Any) -> dict[str, Any]:
    """Replaces a tokenizer: a token for each character, and an empty one at the end."""
    return {
        "input_ids": [[*map(ord, text), 0] for text in texts],
        "offset_mapping": [
            [*((index, index + 1) for index in range(len(text))), (len(text), len(text))] for text in texts
        ],
    }


def test_tokens_that_begin_in_a_span_are_targets() -> None:
    first, second, empty = encode(tokenize, [Rendered("abcd", ((0, 1), (2, 9))), Rendered("xy", ()), Rendered("", ())])
    assert first.ids == [97, 98, 99, 100, 0]
    assert first.is_target.tolist() == [True, False, True, True, False]
    assert first.labels.tolist() == [97, IGNORED_LABEL, 99, 100, IGNORED_LABEL]
    assert second.labels.tolist() == [IGNORED_LABEL] * 3
    assert empty.is_target.tolist() == [False]
    assert encode(tokenize, []) == []


def test_the_last_answer_need_not_be_the_last_message() -> None:
    assert find_last_answer([USER, ANSWER, USER, ANSWER, USER]) == 3
    with pytest.raises(ValueError, match="empty"):
        find_last_answer([USER])
