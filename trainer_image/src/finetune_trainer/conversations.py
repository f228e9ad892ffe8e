"""Checks one line of OpenAI's chat JSONL. Pure: a line in, its problems out."""

import json
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

_ROLES = ("system", "developer", "user", "assistant", "tool")
_ROW_KEYS = {"messages", "tools", "parallel_tool_calls"}
_MESSAGE_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "weight"}

LONGEST_LINE = 1 << 22
"""Bytes of a line at most."""


class LineError(Exception):
    """A line that cannot be used; the message names the field."""


def parse_conversation(line: bytes) -> dict[str, Any]:
    """Return the conversation of a line as `{"messages": [...], "tools": [...]}`.

    Raises:
        LineError: the first thing that is wrong with it.
    """
    row = _parse_row(line)
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise LineError('messages is missing or empty: give a list of {"role", "content"}')
    tools = _check_tools(row.get("tools"))
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]", tools, open_calls)
    if open_calls:
        raise LineError(f"the tool call {open_calls[0]!r} has no answer: add a message of role tool")
    if not any(message["role"] == "assistant" for message in messages):
        raise LineError("no message of role assistant: there is nothing to learn")
    conversation: dict[str, Any] = {"messages": messages}
    if tools:
        conversation["tools"] = row["tools"]
    return conversation


def _parse_row(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise LineError(f"the line has {len(line)} bytes, {LONGEST_LINE} are allowed")
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LineError(f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise LineError(f"not JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise LineError("not JSON that can be read: nested too deeply") from None
    if not isinstance(row, dict):
        raise LineError(f'a {type(row).__name__}, not an object: each line is {{"messages": [...]}}')
    unknown = sorted(row.keys() - _ROW_KEYS)
    if unknown:
        raise LineError(f"unknown field {unknown[0]!r}: only {', '.join(sorted(_ROW_KEYS))} are known")
    return row


def _check_tools(tools: Any) -> dict[str, dict[str, Any]]:
    """Return the parameters' schemas of the declared tools by name."""
    if tools is None:
        return {}
    if not isinstance(tools, list):
        raise LineError("tools is not a list")
    schemas = {}
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise LineError(f'tools[{index}] is not {{"type": "function", "function": {{"name": ...}}}}')
        schema = function.get("parameters") or {}
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise LineError(f"tools[{index}].function.parameters is no JSON schema: {error.message}") from None
        schemas[function["name"]] = schema
    return schemas


def _check_message(  # noqa: C901 - one check after the other
    message: Any, where: str, tools: dict[str, dict[str, Any]], open_calls: list[str]
) -> None:
    if not isinstance(message, dict):
        raise LineError(f"{where} is a {type(message).__name__}, not an object")
    role = message.get("role")
    if role not in _ROLES:
        raise LineError(f"{where}.role {role!r} is not one of {', '.join(_ROLES)}")
    unknown = sorted(message.keys() - _MESSAGE_KEYS)
    if unknown:
        raise LineError(f"{where} has an unknown field {unknown[0]!r}")
    calls = message.get("tool_calls")
    if calls is not None and role != "assistant":
        raise LineError(f"{where}.tool_calls: only the assistant calls tools")
    content = message.get("content")
    if not isinstance(content, str) and not (content is None and calls):
        raise LineError(
            f"{where}.content must be a string" + (" (null only beside tool_calls)" if content is None else "")
        )
    if not content and not calls:
        raise LineError(f"{where}.content is empty")
    if role == "tool":
        if message.get("tool_call_id") not in open_calls:
            raise LineError(f"{where}.tool_call_id {message.get('tool_call_id')!r} answers no open tool call")
        open_calls.remove(message["tool_call_id"])
    elif open_calls:
        raise LineError(f"{where}: the tool call {open_calls[0]!r} has no answer before it")
    if calls is not None:
        _check_calls(calls, where, tools, open_calls)


def _check_calls(calls: Any, where: str, tools: dict[str, dict[str, Any]], open_calls: list[str]) -> None:
    if not isinstance(calls, list) or not calls:
        raise LineError(f"{where}.tool_calls is not a list with calls")
    for index, call in enumerate(calls):
        place = f"{where}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            raise LineError(f'{place} is not {{"id", "type": "function", "function": {{"name", "arguments"}}}}')
        name = function.get("name")
        if name not in tools:
            raise LineError(f"{place}.function.name {name!r} is not declared in tools")
        try:
            arguments = json.loads(function["arguments"])
        except (KeyError, TypeError, ValueError):
            raise LineError(f"{place}.function.arguments is not a string of JSON") from None
        problem = next(iter(Draft202012Validator(tools[name]).iter_errors(arguments)), None)
        if problem is not None:
            raise LineError(f"{place}.function.arguments: {problem.message}")
        open_calls.append(call["id"])
