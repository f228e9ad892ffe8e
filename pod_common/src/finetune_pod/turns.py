"""The texts that training and evaluation read of one assistant turn: the prompt that the server sends, and the answer.

The prompt is what the server sends to the model at this point of the conversation. The answer is what the chat template
renders after it. Many templates render a turn differently when it is no longer the last one, for example without its
reasoning, so every turn is rendered as the last one.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_pod.requests import REASONING_FIELDS, Message, Tool, get_parts, get_reasoning
from finetune_pod.template import ChatTemplate, TemplateError

_THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
)
"""What opens and closes a thought in the models' formats."""
_CONTENT_STARTS = (*(closing for _, closing in _THOUGHTS), "<|channel|>final<|message|>", " to=user<|message|>")
"""What is before the content of an answer, after the thought."""
_PROBE = "x"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the assistant as text."""

    prompt: str
    """What the server sends: everything before the answer, with the generation prompt."""
    answer: str
    """What the model learns to write, at least up to the token that ends it."""
    thinks: bool | None
    """Whether the prompt switches reasoning on or off; None if it keeps the template's default."""
    omitted: tuple[str, ...]
    """Fields of the answer that the template leaves out."""
    messages: int
    """The number of messages in the answer."""


def render_turn(
    template: ChatTemplate,
    prompt: list[Message],
    answer: list[Message],
    tools: list[Tool] | None,
    modes: tuple[bool | None, ...] | None = None,
) -> Turn:
    """Return an answer of the assistant, and the prompt before it.

    Reasoning is learned where the template or the generation prompt has a place for it. An answer without reasoning is
    learned after the default prompt; if that prompt begins a thought, after the prompt that switches reasoning off.

    Args:
        template: the model's.
        prompt: the messages before the answer.
        answer: messages that begin and end with an assistant's; usually one.
        tools: the tools that the conversation declares.
        modes: the values of `Turn.thinks` to try; None chooses them.

    Raises:
        TemplateError: the template fails, or the answer is not in what it renders.
    """
    reasoning, contents = split_reasoning(answer[0])
    closes_thoughts = modes is not None or not template.has_switch(tools)
    if modes is None:
        modes = (None,) if closes_thoughts else (None, True) if reasoning else (None, False)
    variants = [[answer[0] | {"content": contents, "reasoning_content": reasoning}, *answer[1:]], answer]
    failure, best = TemplateError(""), None
    for thinks in modes:
        for messages in variants if reasoning else variants[1:]:
            try:
                turn = _render(template, prompt, messages, tools, thinks=thinks, closes_thoughts=closes_thoughts)
            except TemplateError as error:
                failure = error
                continue
            if not turn.omitted:
                return turn
            best = best if best and len(best.omitted) <= len(turn.omitted) else turn
    if best is None:
        raise failure
    return best


def split_reasoning(message: Message) -> tuple[str, list[str]]:
    """Return the reasoning of an assistant's message, and the texts of its answer.

    The reasoning is in a field of its own, or in a block at the beginning of the content.
    """
    parts = get_parts(message.get("content"))
    reasoning = get_reasoning(message) or ""
    for opening, closing in _THOUGHTS if parts and not reasoning else ():
        thought, found, rest = parts[0].partition(closing)
        if found and thought.lstrip().startswith(opening):
            return thought.strip().removeprefix(opening).strip(), [rest.lstrip(), *parts[1:]]
    return reasoning.strip(), parts


def strip_reasoning(message: Message) -> Message:
    """Return a message without its reasoning."""
    reasoning, contents = split_reasoning(message)
    if message["role"] != "assistant" or not reasoning:
        return message
    message = {name: value for name, value in message.items() if name not in REASONING_FIELDS}
    if isinstance(message.get("content"), str):
        return message | {"content": contents[0]}
    if message.get("content"):
        return message | {"content": [{"type": "text", "text": text} for text in contents]}
    return message


def cut_thought(text: str) -> str:
    """Return what an answer has after the thought before it."""
    for start in _CONTENT_STARTS:
        text = text.rpartition(start)[2]
    return text


def strip_thought(text: str) -> str:
    """Return an answer without the thought before it, and without spaces around it."""
    return cut_thought(text).strip()


def read_content(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the content of an answer, which a server sends to its clients, without spaces around it.

    What marks a thought may be special tokens, so these are removed after the thought.

    Args:
        tokenizer: of transformers.
        ids: the tokens of the answer, without the one that ends it.
    """
    text = cut_thought(tokenizer.decode(list(ids)))
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return text.strip()


def render_continuation(
    template: ChatTemplate, messages: list[Message], tools: list[Tool] | None, *, thinks: bool | None
) -> str:
    """Return what the template renders between the last message, an assistant's, and a next one; empty if it fails.

    Some templates write the token that ends an answer only there.
    """
    last = messages[-1]
    following: Message = {"role": "user", "content": _PROBE}
    if calls := last.get("tool_calls"):
        following = {"role": "tool", "tool_call_id": calls[0]["id"], "name": calls[0]["function"]["name"]}
        following["content"] = _PROBE
    try:
        whole = template.render(messages, tools, prompts=False, thinks=thinks)
        continued = template.render([*messages, following], tools, prompts=False, thinks=thinks)
    except TemplateError:
        return ""
    if not continued.startswith(whole) and (contents := split_reasoning(last)[1]):
        # Earlier reasoning is gone, so only what follows the content is compared.
        whole = whole.rpartition(contents[-1].strip())[2]
        continued = continued.rpartition(contents[-1].strip())[2]
    return continued[len(whole) :] if continued.startswith(whole) else ""


def _render(
    template: ChatTemplate,
    prompt: list[Message],
    answer: list[Message],
    tools: list[Tool] | None,
    *,
    thinks: bool | None,
    closes_thoughts: bool,
) -> Turn:
    reasoning = split_reasoning(answer[0])[0]
    prompt_text = template.render(prompt, tools, prompts=True, thinks=thinks)
    if not reasoning and thinks is None and not closes_thoughts and _find_thought(prompt_text, is_closed=False):
        raise TemplateError("the generation prompt begins a thought")
    text = _render_answer(template, prompt, prompt_text, answer, tools, thinks=thinks)
    if text is None:
        # Some templates render what comes before an answer differently once it follows, for example a system message.
        probe: list[Message] = [{"role": "user", "content": _PROBE}]
        probe_text = template.render(probe, tools, prompts=True, thinks=thinks)
        text = _render_answer(template, probe, probe_text, answer, tools, thinks=thinks)
    if text is None:
        raise TemplateError("the chat template renders the prompt differently with and without its answer")
    omitted = tuple(part for number, message in enumerate(answer) for part in _find_omitted(number, message, text))
    calls = any(message.get("tool_calls") for message in answer)
    if any(".tool_calls" in part or (part.endswith(".content") and not calls) for part in omitted):
        raise TemplateError(f"the chat template omits {', '.join(omitted)}")
    return Turn(prompt_text, text, thinks, omitted, len(answer))


def _render_answer(
    template: ChatTemplate,
    prompt: list[Message],
    prompt_text: str,
    answer: list[Message],
    tools: list[Tool] | None,
    *,
    thinks: bool | None,
) -> str | None:
    """Return what the template renders after a prompt; None if it renders the prompt differently with the answer."""
    messages = [*prompt, *answer]
    try:
        whole = template.render(messages, tools, prompts=False, thinks=thinks)
    except TemplateError:
        whole = template.render(messages, tools, prompts=False, thinks=thinks, encodes_arguments=True)
    return _find_answer(prompt_text, whole, split_reasoning(answer[0])[0])


def _find_thought(prompt: str, *, is_closed: bool) -> "re.Match[str] | None":
    """Return the thought at the end of a prompt: its opening, or an empty one that is closed."""
    for opening, closing in _THOUGHTS:
        end = rf"\s*{re.escape(closing)}" if is_closed else ""
        if match := re.search(rf"{re.escape(opening)}{end}\s*$", prompt):
            return match
    return None


def _find_answer(prompt: str, whole: str, reasoning: str) -> str | None:
    """Return what a rendered conversation has after the prompt of its last turn; None if the texts differ before.

    Some generation prompts begin a thought that the rendered answer does not have. Then the answer first ends it.
    """
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    if (match := _find_thought(prompt, is_closed=True)) and not reasoning and whole.startswith(prompt[: match.start()]):
        return whole[match.start() :].lstrip()
    if (match := _find_thought(prompt, is_closed=False)) and whole.startswith(prompt[: match.start()]):
        closing = next(closing for opening, closing in _THOUGHTS if match[0].startswith(opening))
        space = "\n" if "\n" in match[0] else ""
        thought = f"{reasoning}{space}{closing}" if reasoning else f"{space}{closing}"
        return thought + space * 2 + whole[match.start() :].lstrip()
    return _skip_ignoring_space(prompt, whole)


def _skip_ignoring_space(prompt: str, whole: str) -> str | None:
    """Return what a text has after a prompt from which it differs only in white space; None if it differs in more."""
    letters, matches = "".join(prompt.split()), re.finditer(r"\S", whole)
    end = 0
    for letter in letters:
        match = next(matches, None)
        if match is None or match[0] != letter:
            return None
        end = match.end()
    rest = whole[end:]
    return rest.lstrip() if prompt[-1:].isspace() else rest


def _find_omitted(number: int, message: Message, answer: str) -> Iterator[str]:
    """Yield the fields of a message that a rendered answer does not contain."""
    reasoning, contents = split_reasoning(message)
    if number == 0 and reasoning and not contains(answer, reasoning):
        yield f"answer[{number}].reasoning_content"
    if not all(contains(answer, content.strip()) for content in contents):
        yield f"answer[{number}].content"
    for index, call in enumerate(message.get("tool_calls") or []):
        function = call["function"]
        arguments = function.get("arguments")
        arguments = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
        if not contains(answer, function["name"]) or not all(contains(answer, leaf) for leaf in _leaves(arguments)):
            yield f"answer[{number}].tool_calls[{index}]"


def contains(text: str, value: str) -> bool:
    """Return whether a text contains a value as it is or escaped for JSON."""
    return find_end(text, value) is not None


def find_end(text: str, value: str, start: int = 0) -> int | None:
    """Return where a value ends in a text from `start` on, as it is or escaped for JSON; None if it is not there."""
    for form in (value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1]):
        position = text.find(form, start)
        if position >= 0:
            return position + len(form)
    return None


def _leaves(value: Any) -> Iterator[str]:
    """Yield the keys, the strings and the numbers of a JSON value."""
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _leaves(item)
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)
