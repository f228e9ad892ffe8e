"""What the gateway passes on, read by vLLM's own functions and by real chat templates."""

from pathlib import Path
from typing import Any

import pytest
from bench.templates import find_trl_templates
from conversations import CONVERSATIONS
from finetune_pod.template import ENVIRONMENT, THINKING_SWITCHES
from finetune_serving.gateway.request_bodies import (
    BOOLEAN_SWITCHES,
    EFFORT_SWITCHES,
    RESPONSES_PATH,
    switch_thinking_off,
)
from jinja2 import meta
from served import ServedError, ServedPrompts
from template_check import make_template_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
"""What vLLM imports uses deprecated parts of torch."""


def make_prompts(template: str, directory: Path) -> ServedPrompts:
    tokenizer, _ = make_template_tokenizer(directory, (find_trl_templates() / f"{template}.jinja").read_text())
    return ServedPrompts(tokenizer)


def to_items(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items of a response's input that say the same as messages of a chat."""
    items: list[dict[str, Any]] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        if isinstance(content, list):
            kind = "output_text" if role == "assistant" else "input_text"
            content = [part | {"type": kind} for part in content]
        if role == "tool":
            items.append({"type": "function_call_output", "call_id": message["tool_call_id"], "output": content})
            continue
        if reasoning := message.get("reasoning") or message.get("reasoning_content"):
            part = {"type": "reasoning_text", "text": reasoning}
            items.append({"type": "reasoning", "summary": [], "content": [part]})
        if content is not None:
            items.append({"role": role, "content": content})
        items += [
            {"type": "function_call", "call_id": call["id"], **call["function"]}
            for call in message.get("tool_calls", [])
        ]
    return items


@pytest.mark.parametrize("template", ["qwen3", "llama3_1", "glm4moe", "deepseekv3"])
def test_a_response_has_the_prompt_of_the_same_chat(template: str, tmp_path: Path) -> None:
    served = make_prompts(template, tmp_path)
    different = {}
    for name, example in CONVERSATIONS.items():
        messages, tools = example["messages"][:-1], example.get("tools", [])
        try:
            chat = served.render(messages, tools)
        except ServedError:
            continue
        functions = [{"type": "function", **tool["function"]} for tool in tools]
        response = served.render_response({"model": "m", "input": to_items(messages), "tools": functions})
        if chat != response:
            different[name] = (chat, response)
    assert not different


def test_thinking_is_switched_off_in_the_prompt_of_a_response(tmp_path: Path) -> None:
    served = make_prompts("qwen3", tmp_path)
    body: dict[str, Any] = {"model": "m", "input": "Is parcel 3 here?"}
    assert "<think>\n\n</think>" not in served.render_response(body)
    assert "<think>\n\n</think>" in served.render_response(switch_thinking_off(RESPONSES_PATH, body))
    effort = switch_thinking_off(RESPONSES_PATH, body | {"reasoning": {"effort": "high"}})
    assert "<think>\n\n</think>" not in served.render_response(effort)


def test_real_templates_read_the_switches_that_requests_may_set() -> None:
    sources = [path.read_text() for path in find_trl_templates().glob("*.jinja")]
    read = {name for source in sources for name in meta.find_undeclared_variables(ENVIRONMENT.parse(source))}
    assert {*BOOLEAN_SWITCHES, *EFFORT_SWITCHES} - {*THINKING_SWITCHES} <= read
    assert "enable_thinking" in read
