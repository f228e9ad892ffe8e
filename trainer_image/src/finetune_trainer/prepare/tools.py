"""Checks the tools that a conversation declares, and its tool calls. No I/O."""

import json
import re
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from finetune_trainer.prepare.row_issues import RowError, describe_type, quote

Validators = dict[str, Validator]
"""The validators of the arguments of tool calls, by the name of the tool."""

_TOOL = '{"type": "function", "function": {"name": ..., "parameters": {...}}}'
_CALL = '{"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}'


def check_tools(tools: Any) -> Validators:
    """Return the validators of the declared tools.

    Raises:
        RowError: a declaration is invalid.
    """
    if tools is None:
        return {}
    if not isinstance(tools, list):
        raise RowError("tools", f"tools is {describe_type(tools)}, not a list: write [{_TOOL}]")
    # Usually all rows of a file have the same tools, hence the cache.
    return _check_tools(json.dumps(tools, default=str))


@lru_cache(256)
def _check_tools(tools: str) -> Validators:
    validators: Validators = {}
    for index, tool in enumerate(json.loads(tools)):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            raise RowError("tools", f"tools[{index}] is not a function: write {_TOOL}")
        if name in validators:
            raise RowError("tools", f"tools[{index}].function.name {quote(name)} is declared twice: rename one")
        validators[name] = _build_validator(function.get("parameters") or {}, f"tools[{index}].function.parameters")
    return validators


def _build_validator(schema: Any, field: str) -> Validator:
    if not isinstance(schema, dict):
        raise RowError("tools", f"{field} is {describe_type(schema)}, not a JSON schema: write an object")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise RowError("tools", f"{field} is not a JSON schema, correct it: {error.message[:120]}") from None
    # The registry is empty, so that references to other documents are never fetched.
    return Draft202012Validator(schema, registry=Registry())


def check_calls(calls: Any, field: str, validators: Validators) -> dict[str, str]:
    """Return the names of the called tools by the ids of the calls.

    Raises:
        RowError: a call is invalid, or does not match the declaration of its tool.
    """
    if not isinstance(calls, list) or not calls:
        raise RowError("tool_calls", f"{field}.tool_calls is not a non-empty list: remove it, or write [{_CALL}]")
    tools: dict[str, str] = {}
    for index, call in enumerate(calls):
        location = f"{field}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str) or call.get("type") != "function":
            raise RowError("tool_calls", f"{location} is not a tool call: write {_CALL}")
        name = function.get("name")
        if not isinstance(name, str) or name not in validators:
            raise RowError("tool_calls", f"{location}.function.name {quote(name)} is not declared in tools: declare it")
        _check_arguments(function.get("arguments"), f"{location}.function.arguments", validators[name])
        if call["id"] in tools:
            raise RowError("tool_calls", f"{location}.id {quote(call['id'])} is used twice: give each call its own id")
        tools[call["id"]] = name
    return tools


def _check_arguments(value: Any, field: str, validator: Validator) -> None:
    """Check arguments: a JSON string, as in OpenAI's format, or an object."""
    try:
        arguments = value if isinstance(value, dict) else json.loads(value)
    except (TypeError, ValueError, RecursionError):
        raise RowError("tool_calls", f'{field} is not a JSON string: write it as "{{\\"key\\": ...}}"') from None
    if not isinstance(arguments, dict):
        raise RowError("tool_calls", f"{field} contains {describe_type(arguments)}: write a JSON object")
    try:
        mismatch = next(iter(validator.iter_errors(arguments)), None)
    except (Unresolvable, re.error, RecursionError) as error:
        hint = "a $ref must point into the same schema, and a pattern must be a regular expression"
        raise RowError("tools", f"{field}: the tool's schema cannot be used ({str(error)[:80]}): {hint}") from None
    if mismatch is not None:
        raise RowError(
            "tool_calls", f"{field} does not match the tool's parameters, correct one of them: {mismatch.message[:120]}"
        )
