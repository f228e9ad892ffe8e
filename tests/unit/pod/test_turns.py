"""The prompt and the answer of a turn, with templates of many kinds."""

from pathlib import Path
from typing import Any

import pytest
from finetune_pod.template import ChatTemplate, TemplateError
from finetune_pod.turns import read_content, render_continuation, render_turn, split_reasoning, strip_thought
from model.tiny import CHAT_TEMPLATE, make_tiny_tokenizer

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "good day"}
REASONED = ANSWER | {"reasoning_content": "be kind"}
INLINE = {"role": "assistant", "content": "<think>\nbe kind\n</think>\n\ngood day"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "find", "arguments": {"id": 7}}}],
}
_BODY = "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}"
_OPENS = "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
OPENS_THOUGHT = _BODY + _OPENS
SWITCH = _BODY + (
    "{% if add_generation_prompt %}<assistant><think>\n{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
KEEPS_LAST_THOUGHT = (
    "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}"
    "</think>{% endif %}{{ m.content }};{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
END_BEFORE_NEXT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>"
    "{% endif %}"
)
SYSTEM_IN_LAST = (
    "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{% if loop.last and messages[0].role == 'system' %}"
    "{{ messages[0].content }} {% endif %}{{ m.content }};{% endfor %}"
)
STRINGS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ call.function.name + call.function.arguments }}{% endfor %};{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def turn(directory: Path, source: str, answer: dict[str, Any], **options: Any) -> tuple[str, str, bool | None]:
    rendered = render_turn(ChatTemplate(make_tiny_tokenizer(directory, source)), [USER], [answer], None, **options)
    return rendered.prompt, rendered.answer, rendered.thinks


@pytest.mark.parametrize(
    ("source", "answer", "expected"),
    [
        (CHAT_TEMPLATE, ANSWER, ("<|user|>hello<|end|>\n<|assistant|>", "good day<|end|>\n", None)),
        (CHAT_TEMPLATE, INLINE, ("<|user|>hello<|end|>\n<|assistant|>", f"{INLINE['content']}<|end|>\n", None)),
        (OPENS_THOUGHT, ANSWER, ("<user>hello;<assistant><think>\n", "\n</think>\n\ngood day;", None)),
        (OPENS_THOUGHT, REASONED, ("<user>hello;<assistant><think>\n", "be kind\n</think>\n\ngood day;", None)),
        (OPENS_THOUGHT, INLINE, ("<user>hello;<assistant><think>\n", "be kind\n</think>\n\ngood day;", None)),
        (SWITCH, ANSWER, ("<user>hello;<assistant><think>\n\n</think>\n\n", "good day;", False)),
        (SWITCH, REASONED, ("<user>hello;<assistant><think>\n", "be kind\n</think>\n\ngood day;", None)),
        (KEEPS_LAST_THOUGHT, REASONED, ("<user>hello;<assistant>", "<think>be kind</think>good day;", None)),
        (KEEPS_LAST_THOUGHT, ANSWER, ("<user>hello;<assistant>", "good day;", None)),
        (STRINGS, CALL, ("<user>hello;<assistant>", 'find{"id": 7};', None)),
    ],
)
def test_an_answer_follows_the_prompt_of_the_server(
    tmp_path: Path, source: str, answer: dict[str, Any], expected: tuple[str, str, bool | None]
) -> None:
    assert turn(tmp_path, source, answer) == expected


def test_a_system_message_may_be_rendered_elsewhere_once_the_answer_follows(tmp_path: Path) -> None:
    template = ChatTemplate(make_tiny_tokenizer(tmp_path, SYSTEM_IN_LAST.replace("<assistant>", "")))
    system = {"role": "system", "content": "be brief"}
    rendered = render_turn(template, [system, USER], [ANSWER], None)
    assert (rendered.prompt, rendered.answer) == ("<user>be brief hello;", "<assistant>good day;")


def test_a_template_may_space_the_generation_prompt_differently(tmp_path: Path) -> None:
    spaced = _BODY.replace(";", ";\n  ") + "{% if add_generation_prompt %} <assistant> \n{% endif %}"
    assert turn(tmp_path, spaced, ANSWER)[1] == "good day;\n"


def test_both_answers_of_a_preference_can_share_a_prompt(tmp_path: Path) -> None:
    opened = "<user>hello;<assistant><think>\n"
    assert turn(tmp_path, SWITCH, ANSWER, modes=(None,)) == (opened, "\n</think>\n\ngood day;", None)


def test_reasoning_without_a_place_is_named(tmp_path: Path) -> None:
    template = ChatTemplate(make_tiny_tokenizer(tmp_path, CHAT_TEMPLATE))
    rendered = render_turn(template, [USER], [REASONED], None)
    assert (rendered.answer, rendered.omitted) == ("good day<|end|>\n", ("answer[0].reasoning_content",))


@pytest.mark.parametrize(
    ("source", "answer", "message"),
    [
        (_BODY.replace("{{ m.content }}", "text") + _OPENS, ANSWER, r"omits answer\[0\].content"),
        (_BODY.replace("{{ m.content }}", "{{ m.content or '' }}"), CALL, r"omits answer\[0\].tool_calls\[0\]"),
        ("{{ messages | length }}{{ add_generation_prompt }}", ANSWER, "renders the prompt differently"),
        ("{% if messages | length > 1 %}{{ raise_exception('too many') }}{% endif %}", ANSWER, "fails: too many"),
    ],
)
def test_an_answer_that_is_not_rendered_is_refused(
    tmp_path: Path, source: str, answer: dict[str, Any], message: str
) -> None:
    with pytest.raises(TemplateError, match=message):
        turn(tmp_path, source, answer)


def test_what_follows_an_answer_is_found_without_its_reasoning(tmp_path: Path) -> None:
    template = ChatTemplate(make_tiny_tokenizer(tmp_path, END_BEFORE_NEXT))
    assert render_continuation(template, [USER, ANSWER], None, thinks=None) == "<user>x"
    template = ChatTemplate(make_tiny_tokenizer(tmp_path, KEEPS_LAST_THOUGHT))
    assert render_continuation(template, [USER, REASONED], None, thinks=None) == "<user>x;"
    assert render_continuation(template, [USER, CALL], None, thinks=None) == "<tool>x;"


@pytest.mark.parametrize(
    ("message", "reasoning", "contents"),
    [
        (ANSWER, "", ["good day"]),
        (REASONED, "be kind", ["good day"]),
        (INLINE, "be kind", ["good day"]),
        ({"content": "no </think> here"}, "", ["no </think> here"]),
        ({"content": None}, "", []),
    ],
)
def test_reasoning_is_a_field_or_the_beginning_of_a_content(
    message: dict[str, Any], reasoning: str, contents: list[str]
) -> None:
    assert split_reasoning(message) == (reasoning, contents)


def test_an_answer_is_compared_without_its_thought() -> None:
    assert strip_thought("<think>\nbe kind\n</think>\n\ngood day ") == "good day"
    assert strip_thought("be kind</think>good day") == "good day"
    assert strip_thought(" good day") == "good day"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("<think>\nbe kind\n</think>\n\ngood day ", "good day"),
        ("<|channel|>analysis<|message|>be kind<|start|>assistant<|channel|>final<|message|>good day", "good day"),
        (" to=user<|message|>good day", "good day"),
        ("good <|system|>day", "good day"),
    ],
)
def test_the_content_of_an_answer_has_no_thought_and_no_special_token(text: str, content: str, tmp_path: Path) -> None:
    tokenizer = make_tiny_tokenizer(tmp_path)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["</think>", "<|system|>", "<|channel|>", "<|message|>"]}
    )
    assert read_content(tokenizer, tokenizer(text)["input_ids"]) == content
