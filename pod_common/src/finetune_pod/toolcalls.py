"""Parses tool calls in a model's answers, in the syntax that its chat template uses. No I/O."""

import json
import re
from dataclasses import dataclass
from typing import Any, Protocol

from finetune_pod.requests import Message
from finetune_pod.turns import cut_thought

_NAME = "get_probe"
_ARGUMENTS = {"probe": "x"}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "probe",
        "parameters": {"type": "object", "properties": {"probe": {"type": "string", "description": "probe"}}},
    },
}
_PROMPT: list[Message] = [{"role": "user", "content": "x"}]
# Mistral's templates accept only ids of nine letters and digits.
_ANSWER: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}],
}


class Render(Protocol):
    """Renders messages and tools with a chat template, as `ChatTemplate.render` does."""

    def __call__(self, messages: list[Message], tools: list[dict[str, Any]], *, prompts: bool) -> str:
        """Return the text, which ends with the generation prompt if `prompts` is set."""


@dataclass(frozen=True)
class Call:
    """A tool call of an answer."""

    name: str
    arguments: Any


@dataclass(frozen=True)
class ToolFormat:
    """The text before a tool's name, and between the name and its JSON arguments."""

    before: str
    between: str

    def parse(self, answer: str) -> list[Call] | None:
        """Return the calls of an answer; None if one of them is malformed."""
        before = _loosen(self.before)
        pattern = re.compile(rf"{before}(?P<name>[\w.:-]+){_loosen(self.between)}\s*")
        calls = []
        for match in pattern.finditer(answer):
            try:
                arguments, _ = json.JSONDecoder().raw_decode(answer, match.end())
            except (ValueError, RecursionError):
                return None
            calls.append(Call(match["name"], arguments))
        return calls if len(calls) == len(re.findall(before, answer)) else None


def learn_format(render: Render) -> ToolFormat | None:
    """Return the format of tool calls in a chat template; None if it does not write a name and JSON arguments."""
    try:
        prompt = render(_PROMPT, [_TOOL], prompts=True)
        whole = render([*_PROMPT, _ANSWER], [_TOOL], prompts=False)
    except Exception:  # noqa: BLE001 - a template may fail in any way: then it has no tool calls
        return None
    first_difference = next(
        (index for index, pair in enumerate(zip(prompt, whole, strict=False)) if pair[0] != pair[1]), None
    )
    turn = whole[len(prompt) if first_difference is None else first_difference :]
    before, name, rest = turn.partition(_NAME)
    # Some templates write an empty thought before a call.
    before = cut_thought(before).lstrip()
    if not name or not before.strip():
        return None
    for start in (match.start() for match in re.finditer(r"\{", rest)):
        try:
            arguments, _ = json.JSONDecoder().raw_decode(rest, start)
        except ValueError:
            continue
        if arguments == _ARGUMENTS:
            return ToolFormat(before, rest[:start])
    return None


def _loosen(literal: str) -> str:
    """Return a pattern for a text with any spaces and line breaks, or none, between its words."""
    return r"\s*".join(re.escape(part) for part in re.split(r"\s+", literal))
