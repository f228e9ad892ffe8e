"""Rewrites conversations in the form of ShareGPT into messages of OpenAI's chat format. No I/O.

A turn is `{"from": "human", "value": "..."}`. There are many spellings: of the roles, of the two fields, and of tool
calls, which are turns of their own or marked in the text of an answer.
"""

import json
import re
from typing import Any

from finetune_trainer.prepare.row_issues import RowError, quote

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "bot": "assistant",
    "function_call": "call",
    "tool_call": "call",
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "function": "tool",
    "ipython": "tool",
}
_FROM, _VALUE = ("from", "role"), ("value", "content", "text")
_MARKED_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_MARKED_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)
Message = dict[str, Any]


def rewrite_turns(turns: Any, field: str) -> Any:
    """Return the messages of a conversation; what is not a list of turns stays as it is, for the checks.

    Raises:
        RowError: a turn has an unknown role, or a call of a tool cannot be read.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return turns
    messages: list[Message] = []
    pending: list[str] = []
    for index, turn in enumerate(turns):
        location = f"{field}[{index}]"
        role, content, rest = _read_turn(turn, location)
        follows = _ROLES.get(str(_get(turns[index + 1], _FROM)).lower()) if index + 1 < len(turns) else None
        if role == "call":
            calls = _read_calls(content, location)
            messages.append({"role": "assistant", "content": None, "tool_calls": number_calls(calls, index)} | rest)
            pending = [call["id"] for call in messages[-1]["tool_calls"]]
        elif role == "tool":
            results = _read_results(content, len(pending))
            for result in results:
                call = {"tool_call_id": pending.pop(0)} if pending else {}
                messages.append({"role": "tool", "content": result} | call | rest)
        elif role == "assistant" and follows == "tool" and isinstance(content, str) and _MARKED_CALL.search(content):
            calls = [_read_call(text, location) for text in _MARKED_CALL.findall(content)]
            text = _MARKED_CALL.sub("", content).strip()
            messages.append({"role": role, "content": text or None, "tool_calls": number_calls(calls, index)} | rest)
            pending = [call["id"] for call in messages[-1]["tool_calls"]]
        else:
            messages.append({"role": role, "content": content} | rest)
    return messages


def is_turn(value: Any) -> bool:
    """Return whether a value is a turn of ShareGPT and not a message."""
    return isinstance(value, dict) and "from" in value and any(name in value for name in _VALUE)


def _get(turn: Message, names: tuple[str, ...]) -> Any:
    return next((turn[name] for name in names if name in turn), None)


def _read_turn(turn: Message, location: str) -> tuple[str, Any, Message]:
    """Return the role, the content and the other fields of a turn; null fields are left out."""
    given = _get(turn, _FROM)
    role = _ROLES.get(str(given).lower())
    if role is None:
        known = ", ".join(_ROLES)
        raise RowError("role", f"{location}.from {quote(given)} is not one of {known}: correct it")
    rest = {name: value for name, value in turn.items() if name not in (*_FROM, *_VALUE) and value is not None}
    return role, _get(turn, _VALUE), rest


def _read_calls(content: Any, location: str) -> list[Message]:
    try:
        calls = json.loads(content) if isinstance(content, str) else content
    except ValueError:
        calls = None
    calls = calls if isinstance(calls, list) else [calls]
    return [_read_call(call, location) for call in calls]


def _read_call(call: Any, location: str) -> Message:
    try:
        call = json.loads(call) if isinstance(call, str) else call
    except ValueError:
        call = None
    if not isinstance(call, dict) or "name" not in call:
        raise RowError("tool_calls", f'{location} is no call of a tool: write {{"name": ..., "arguments": {{...}}}}')
    return {"name": call["name"], "arguments": call.get("arguments", call.get("parameters")) or {}}


def number_calls(calls: list[Message], index: int) -> list[Message]:
    """Return calls in OpenAI's format, with ids that are unique in the conversation."""
    return [
        {"id": f"call_{index}_{number}", "type": "function", "function": function}
        for number, function in enumerate(calls)
    ]


def _read_results(content: Any, calls: int) -> list[str]:
    """Return the results of tools in one turn: one for each call if the turn has as many, otherwise the whole turn."""
    if not isinstance(content, str):
        content = json.dumps(content, ensure_ascii=False)
    marked = _MARKED_RESULT.findall(content)
    if marked and len(marked) == max(calls, 1):
        return [str(result) for result in marked]
    if calls > 1:
        try:
            results = json.loads(content)
        except ValueError:
            results = None
        if isinstance(results, list) and len(results) == calls:
            return [result if isinstance(result, str) else json.dumps(result, ensure_ascii=False) for result in results]
    return [content]
