"""How a conversation becomes text and tokens, and which of them are training targets.

Training and evaluation both use it, so that they agree. The tokenizer's own chat template renders the text.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Message = dict[str, Any]
Render = Callable[[list[Message], bool], str]
"""Renders messages with the chat template; the flag is the template's `add_generation_prompt`."""

IGNORED_LABEL = -100
"""The label of a token that is not a target: the default `ignore_index` of torch's cross entropy."""


class TemplateError(Exception):
    """The model's chat template cannot render the conversation, or omits a part of it."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """The targets as character spans, [start, end): the assistant's turns."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A rendered text as tokens."""

    ids: list[int]
    is_target: NDArray[np.bool_]
    """Whether each token is a target; as long as `ids`."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The ids of the targets, IGNORED_LABEL elsewhere; as long as `ids`."""
        return np.where(self.is_target, np.asarray(self.ids, dtype=np.int64), IGNORED_LABEL)


def apply_template(tokenizer: Any, messages: list[Message], tools: Any, add_generation_prompt: bool) -> str:  # noqa: FBT001
    """Return messages and tools as text, by the chat template of a transformers tokenizer."""
    return str(
        tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    )


def encode(tokenizer: Any, rendered: list[Rendered]) -> list[Encoded]:
    """Return the tokens of each text and which of them are targets: those that begin in a span and are not empty.

    Args:
        tokenizer: a fast tokenizer of transformers; it gets all texts in one call.
        rendered: the texts, which contain all special tokens already.
    """
    if not rendered:
        return []
    texts = [sequence.text for sequence in rendered]
    batch = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    return [
        Encoded(ids, _find_targets(offsets, sequence.spans))
        for sequence, ids, offsets in zip(rendered, batch["input_ids"], batch["offset_mapping"], strict=True)
    ]


def _find_targets(offsets: list[tuple[int, int]], spans: tuple[tuple[int, int], ...]) -> NDArray[np.bool_]:
    starts, ends = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).T
    is_target = np.zeros(len(starts), dtype=bool)
    for start, end in spans:
        is_target |= (start <= starts) & (starts < end)
    return is_target & (starts < ends)


def find_last_answer(messages: list[Message]) -> int:
    """Return the index of the assistant's last message.

    Raises:
        ValueError: the assistant has none.
    """
    return max(index for index, message in enumerate(messages) if message["role"] == "assistant")


def parse_arguments(messages: list[Message]) -> list[Message]:
    """Return the messages with the arguments of tool calls as objects.

    In OpenAI's format they are JSON strings, which most chat templates would encode a second time.
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


def render_all(example: dict[str, Any], render: Render, eos_token: str) -> dict[str, Rendered]:
    """Return every sequence that training reads of a prepared example, by the field that the sequence ends with.

    A conversation is one sequence; so is a plain text, all of which is a target. A prompt without an answer is one
    sequence without targets. A preference is one sequence for each answer, with the prompt before it.

    Raises:
        TemplateError: the template cannot render the example.
    """
    if "text" in example:
        text = example["text"] + eos_token
        return {"text": Rendered(text, ((0, len(text)),))}
    if "messages" in example:
        return {"messages": render_conversation(example["messages"], render)}
    prompt = example["prompt"]
    answers = {field: example[field] for field in ("chosen", "rejected", "completion") if field in example}
    rendered_prompt = _render(prompt, render, add_generation_prompt=True)
    if not answers:
        return {"prompt": Rendered(rendered_prompt, ())}
    return {field: _render_answer(rendered_prompt, [*prompt, *answer], render) for field, answer in answers.items()}


def _render_answer(rendered_prompt: str, messages: list[Message], render: Render) -> Rendered:
    """Render a prompt with its answer; everything after the rendered prompt is a target."""
    text = _render(messages, render, add_generation_prompt=False)
    if not text.startswith(rendered_prompt) or len(text) <= len(rendered_prompt):
        raise TemplateError("the chat template renders the prompt differently with and without its answer")
    return Rendered(text, ((len(rendered_prompt), len(text)),))


def render_conversation(messages: list[Message], render: Render) -> Rendered:
    """Render a whole conversation and find the assistant's turns in the text.

    A turn whose `weight` is 0 is not a target, as in OpenAI's format. A turn spans everything that the template renders
    for it after the generation prompt, the stop token included. Some templates render earlier turns differently than
    the last one, for example without reasoning: such turns are not targets.

    Raises:
        TemplateError: the template fails, or the last turn cannot be found in the text.
    """
    text = _render(messages, render, add_generation_prompt=False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("weight") == 0:
            continue
        before = _render(messages[:index], render, add_generation_prompt=True)
        after = _render(messages[: index + 1], render, add_generation_prompt=False)
        if text.startswith(before) and text.startswith(after) and len(before) < len(after):
            spans.append((len(before), len(after)))
        elif index == len(messages) - 1:
            raise TemplateError("the chat template renders the last turn differently with and without its answer")
    if not spans:
        raise TemplateError("the chat template renders no assistant turn that can be found in the text")
    return Rendered(text, tuple(spans))


def _render(messages: list[Message], render: Render, *, add_generation_prompt: bool) -> str:
    try:
        return render(messages, add_generation_prompt)
    except Exception as error:
        raise TemplateError(f"the chat template fails: {error}") from error
