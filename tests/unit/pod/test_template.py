"""A chat template with its switches."""

from datetime import date
from pathlib import Path

import pytest
from finetune_pod.template import ChatTemplate, TemplateError
from model.tiny import make_tiny_tokenizer

USER = {"role": "user", "content": "hello"}
CALL = {"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "find"}}]
SWITCH = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}assistant:"
    "{% if enable_thinking is defined and not enable_thinking %}<none>{% endif %}{% endif %}"
)


def load(directory: Path, source: str) -> ChatTemplate:
    return ChatTemplate(make_tiny_tokenizer(directory, source))


def test_only_a_template_with_a_switch_gets_it(tmp_path: Path) -> None:
    template = load(tmp_path, SWITCH)
    assert template.has_switch(None)
    assert template.render([USER], None, prompts=True) == "user:hello;assistant:"
    assert template.render([USER], None, prompts=True, thinks=False) == "user:hello;assistant:<none>"
    assert template.render([USER], None, prompts=True, thinks=True) == "user:hello;assistant:"
    assert template.render([USER], None, prompts=False) == "user:hello;"
    assert not load(tmp_path, "{{ messages }}").has_switch(None)


@pytest.mark.parametrize(
    ("source", "message"), [("{{ raise_exception('no roles') }}", "no roles"), ("{% for m in x %}", "Unexpected end")]
)
def test_a_failing_template_is_named(tmp_path: Path, source: str, message: str) -> None:
    template = load(tmp_path, source)
    with pytest.raises(TemplateError, match=f"the chat template fails: {message}"):
        template.render([USER], None, prompts=True)


def test_tools_and_arguments_are_those_of_a_request(tmp_path: Path) -> None:
    template = load(tmp_path, "{{ tools | tojson }}{{ messages[0].tool_calls[0].function.arguments }}")
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    function = '{"name": "find", "description": null, "parameters": null}'
    assert template.render([message], TOOLS, prompts=False) == f'[{{"type": "function", "function": {function}}}]{{}}'
    assert template.render([message], TOOLS, prompts=False, encodes_arguments=True).endswith("]{}")
    assert "ab" in load(
        tmp_path, "{{ 'a' + messages[0].tool_calls[0].function.arguments | replace('{}', 'b') }}"
    ).render([message], None, prompts=False, encodes_arguments=True)


def test_a_template_that_prints_the_date_gets_the_same_in_all_stages(tmp_path: Path) -> None:
    tokenizer = make_tiny_tokenizer(tmp_path, "{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}")
    template = ChatTemplate(tokenizer, date(2026, 1, 2))
    assert template.prints_date
    assert template.render([USER], None, prompts=True) == "02 Jan 2026: hello"
    assert not load(tmp_path, SWITCH).prints_date
