"""Checks messages and tools in OpenAI's chat format. Pure: values in, the first mistake out."""

import json
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

Message = dict[str, Any]
Schemas = dict[str, dict[str, Any]]
"""The JSON schemas of tools' parameters, by the tool's name."""

_ROLES = ("system", "developer", "user", "assistant", "tool")
_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "weight"}


class RowError(Exception):
    """A row that cannot be used: the sort of mistake, and a message that names the field."""

    def __init__(self, kind: str, message: str) -> None:
        """Keep both; `kind` is one word and the same for all mistakes of its sort."""
        super().__init__(message)
        self.kind = kind


def check_tools(tools: Any) -> Schemas:
    """Return the schemas of the declared tools.

    Raises:
        RowError: a tool is declared wrongly.
    """
    if tools is None:
        return {}
    if not isinstance(tools, list):
        raise RowError("tools", "tools is not a list")
    schemas = {}
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowError("tools", f'tools[{index}] is not {{"type": "function", "function": {{"name": ...}}}}')
        schema = function.get("parameters") or {}
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            where = f"tools[{index}].function.parameters"
            raise RowError("tools", f"{where} is no JSON schema: {error.message}") from None
        schemas[function["name"]] = schema
    return schemas


def check_messages(messages: Any, schemas: Schemas, where: str, *, opened: tuple[str, ...] = ()) -> None:
    """Check a list of messages, one after the other.

    Args:
        messages: what should be a list of messages.
        schemas: the tools that may be called.
        where: the field's name, for the message.
        opened: tool calls that messages before these have made and that are not answered yet.

    Raises:
        RowError: the first mistake.
    """
    if not isinstance(messages, list) or not messages:
        raise RowError("messages", f'{where} is missing or empty: give a list of {{"role", "content"}}')
    waiting = list(opened)
    for index, message in enumerate(messages):
        _check_message(message, f"{where}[{index}]", schemas, waiting)
    if waiting:
        raise RowError("tool_calls", f"the tool call {waiting[0]!r} has no answer: add a message of role tool")


def _check_message(message: Any, where: str, schemas: Schemas, waiting: list[str]) -> None:
    if not isinstance(message, dict):
        raise RowError("messages", f"{where} is a {type(message).__name__}, not an object")
    role = message.get("role")
    if role not in _ROLES:
        raise RowError("role", f"{where}.role {role!r} is not one of {', '.join(_ROLES)}")
    unknown = sorted(message.keys() - _KEYS)
    if unknown:
        raise RowError("field", f"{where} has an unknown field {unknown[0]!r}")
    _check_content(message, where)
    if role == "tool":
        if message.get("tool_call_id") not in waiting:
            raise RowError("tool_calls", f"{where}.tool_call_id {message.get('tool_call_id')!r} answers no open call")
        waiting.remove(message["tool_call_id"])
    elif waiting:
        raise RowError("tool_calls", f"{where}: the tool call {waiting[0]!r} has no answer before it")
    if message.get("tool_calls") is not None:
        _check_calls(message["tool_calls"], where, schemas, waiting)


def _check_content(message: Message, where: str) -> None:
    role, content, calls = message["role"], message.get("content"), message.get("tool_calls")
    if calls is not None and role != "assistant":
        raise RowError("tool_calls", f"{where}.tool_calls: only the assistant calls tools")
    if not isinstance(content, str) and not (content is None and calls):
        hint = " (null only beside tool_calls)" if content is None else ""
        raise RowError("content", f"{where}.content must be a string{hint}")
    if not content and not calls:
        raise RowError("content", f"{where}.content is empty")
    if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
        raise RowError("weight", f"{where}.weight must be 0 or 1, on messages of the assistant only")


def _check_calls(calls: Any, where: str, schemas: Schemas, waiting: list[str]) -> None:
    if not isinstance(calls, list) or not calls:
        raise RowError("tool_calls", f"{where}.tool_calls is not a list with calls")
    for index, call in enumerate(calls):
        place = f"{where}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            shape = '{"id", "type": "function", "function": {"name", "arguments"}}'
            raise RowError("tool_calls", f"{place} is not {shape}")
        name = function.get("name")
        if name not in schemas:
            raise RowError("tool_calls", f"{place}.function.name {name!r} is not declared in tools")
        try:
            arguments = json.loads(function["arguments"])
        except (KeyError, TypeError, ValueError):
            raise RowError("tool_calls", f"{place}.function.arguments is not a string of JSON") from None
        problem = next(iter(Draft202012Validator(schemas[name]).iter_errors(arguments)), None)
        if problem is not None:
            raise RowError("tool_calls", f"{place}.function.arguments: {problem.message}")
        waiting.append(call["id"])
