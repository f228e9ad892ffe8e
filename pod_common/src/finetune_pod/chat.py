"""How a conversation becomes text, and which part of the text the model is to learn.

Training and evaluation agree on it here; the tokenizer's own chat template does the rendering.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Render = Callable[[list[Message], bool], str]
"""Renders messages through the chat template; the flag asks for the opening of an assistant's turn."""


class TemplateError(Exception):
    """The model's chat template cannot render the conversation, or loses a part of it."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, with the character spans of the assistant's turns: [start, end)."""

    text: str
    spans: tuple[tuple[int, int], ...]


def parse_arguments(messages: list[Message]) -> list[Message]:
    """Return the messages with the arguments of tool calls as objects.

    OpenAI's format has them as a JSON string, which most chat templates would encode a second time.
    """
    return [_parse_message(message) for message in messages]


def _parse_message(message: Message) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = dict(call["function"])
        if isinstance(function.get("arguments"), str):
            function["arguments"] = json.loads(function["arguments"] or "{}")
        calls.append(call | {"function": function})
    return message | {"tool_calls": calls}


def render_example(example: dict[str, Any], render: Render, end: str) -> Rendered:
    """Return a prepared example as text: a conversation, or plain text, which is learnt whole.

    Args:
        example: `{"messages": [...]}` or `{"text": "..."}`.
        render: renders messages through the chat template.
        end: the token that ends a text.

    Raises:
        TemplateError: the template cannot render it.
    """
    if "text" not in example:
        return render_conversation(example["messages"], render)
    text = example["text"] + end
    return Rendered(text, ((0, len(text)),))


def render_all(example: dict[str, Any], render: Render, end: str) -> dict[str, Rendered]:
    """Return every sequence that training reads of a prepared example, by the field that it ends with.

    A conversation or a text is one sequence; so is a prompt that is still to be answered, of which nothing is learnt;
    of a preference each answer is one, its prompt before it.

    Raises:
        TemplateError: the template cannot render it.
    """
    for field in ("text", "messages"):
        if field in example:
            return {field: render_example(example, render, end)}
    prompt = example["prompt"]
    answers = {field: example[field] for field in ("chosen", "rejected", "completion") if field in example}
    opened = _render(prompt, render, opening=True)
    if not answers:
        return {"prompt": Rendered(opened, ())}
    return {field: _render_answer(opened, [*prompt, *answer], render) for field, answer in answers.items()}


def _render_answer(opened: str, messages: list[Message], render: Render) -> Rendered:
    """Render a prompt with its answer, of which everything after the rendered prompt is learnt."""
    text = _render(messages, render, opening=False)
    if not text.startswith(opened) or len(text) <= len(opened):
        raise TemplateError("the chat template renders the prompt differently with and without its answer")
    return Rendered(text, ((len(opened), len(text)),))


def render_conversation(messages: list[Message], render: Render) -> Rendered:
    """Render a whole conversation and find the assistant's turns in it.

    A turn whose `weight` is 0 is not learnt, as OpenAI has it. A turn spans from where the template opens
    it to the end of what it renders for it, the stop token included. Where the template renders earlier
    turns differently than later ones (some drop old reasoning), only the last turn counts.

    Raises:
        TemplateError: the template fails, or the last turn cannot be told apart.
    """
    text = _render(messages, render, opening=False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("weight") == 0:
            continue
        before = _render(messages[:index], render, opening=True)
        after = _render(messages[: index + 1], render, opening=False)
        if text.startswith(before) and text.startswith(after) and len(before) < len(after):
            spans.append((len(before), len(after)))
        elif index == len(messages) - 1:
            raise TemplateError("the chat template renders the last turn differently with and without its answer")
    if not spans:
        raise TemplateError("the chat template leaves no assistant turn to learn")
    return Rendered(text, tuple(spans))


def _render(messages: list[Message], render: Render, *, opening: bool) -> str:
    try:
        return render(messages, opening)
    except Exception as error:
        raise TemplateError(f"the chat template fails: {error}") from error
