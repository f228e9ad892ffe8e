"""How a model writes the calls of tools: learnt from its chat template, read back out of its answers. Pure."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune_pod.chat import Message

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
_ASKED: list[Message] = [{"role": "user", "content": "x"}]
# Mistral's templates take ids of nine letters and digits only.
_CALLED: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}],
}

RenderWithTools = Callable[[list[Message], list[dict[str, Any]], bool], str]
"""Renders messages and tools through the chat template; the flag asks for the opening of an assistant's turn."""


@dataclass(frozen=True)
class Call:
    """A tool called by an answer."""

    name: str
    arguments: Any


@dataclass(frozen=True)
class ToolFormat:
    """What stands before a tool's name and between it and its arguments, which are JSON."""

    before: str
    between: str

    def parse(self, answer: str) -> list[Call] | None:
        """Return the calls of an answer; None where one of them is written wrongly."""
        before = _loosen(self.before)
        pattern = re.compile(rf"{before}(?P<name>[\w.:-]+){_loosen(self.between)}\s*")
        calls = []
        for found in pattern.finditer(answer):
            try:
                arguments, _ = json.JSONDecoder().raw_decode(answer, found.end())
            except (ValueError, RecursionError):
                return None
            calls.append(Call(found["name"], arguments))
        return calls if len(calls) == len(re.findall(before, answer)) else None


def learn_format(render: RenderWithTools) -> ToolFormat | None:
    """Learn from the template how calls are written; None where it writes none as a name and JSON arguments."""
    try:
        opening = render(_ASKED, [_TOOL], True)  # noqa: FBT003 - as finetune_pod.chat.Render has it
        whole = render([*_ASKED, _CALLED], [_TOOL], False)  # noqa: FBT003
    except Exception:  # noqa: BLE001 - a template may fail in any way, and then it has no calls
        return None
    shared = next((index for index, pair in enumerate(zip(opening, whole, strict=False)) if pair[0] != pair[1]), None)
    turn = whole[len(opening) if shared is None else shared :]
    before, found, rest = turn.partition(_NAME)
    if not found or not before.strip():
        return None
    for start in (match.start() for match in re.finditer(r"\{", rest)):
        try:
            arguments, _ = json.JSONDecoder().raw_decode(rest, start)
        except ValueError:
            continue
        if arguments == _ARGUMENTS:
            return ToolFormat(before.lstrip(), rest[:start])
    return None


def _loosen(literal: str) -> str:
    """Return a pattern for a text in which spaces and line breaks may be others, or none."""
    return r"\s*".join(re.escape(part) for part in re.split(r"\s+", literal))
