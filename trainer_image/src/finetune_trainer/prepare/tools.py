"""Checks the tools that a conversation declares and the calls it makes of them. Pure."""

import json
import re
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from finetune_trainer.prepare.row_issues import RowError, kind_of, show

Schemas = dict[str, Validator]
"""What judges the arguments of each tool, by the tool's name."""

_TOOL = '{"type": "function", "function": {"name": ..., "parameters": {...}}}'
_CALL = '{"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}'


def check_tools(tools: Any) -> Schemas:
    """Return what judges the calls of the declared tools.

    Raises:
        RowError: a tool is declared wrongly.
    """
    if tools is None:
        return {}
    if not isinstance(tools, list):
        raise RowError("tools", f"tools is {kind_of(tools)}, not a list: write [{_TOOL}]")
    # The rows of a file share their tools as a rule.
    return _check_tools(json.dumps(tools, default=str))


@lru_cache(256)
def _check_tools(tools: str) -> Schemas:
    schemas: Schemas = {}
    for index, tool in enumerate(json.loads(tools)):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            raise RowError("tools", f"tools[{index}] is not {_TOOL}")
        if name in schemas:
            raise RowError("tools", f"tools[{index}].function.name {show(name)} is declared twice: give each a name")
        schemas[name] = _build_validator(function.get("parameters") or {}, f"tools[{index}].function.parameters")
    return schemas


def _build_validator(schema: Any, where: str) -> Validator:
    if not isinstance(schema, dict):
        raise RowError("tools", f"{where} is {kind_of(schema)}, not a JSON schema: write an object")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise RowError("tools", f"{where} is no JSON schema, correct it: {error.message[:120]}") from None
    # An empty registry: a reference to another document is never fetched.
    return Draft202012Validator(schema, registry=Registry())


def check_calls(calls: Any, where: str, schemas: Schemas) -> dict[str, str]:
    """Return the names of the tools called, by the calls' ids.

    Raises:
        RowError: a call is not one, or not as its tool is declared.
    """
    if not isinstance(calls, list) or not calls:
        raise RowError("tool_calls", f"{where}.tool_calls is not a list with calls: leave it out, or write [{_CALL}]")
    called: dict[str, str] = {}
    for index, call in enumerate(calls):
        place = f"{where}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str) or call.get("type") != "function":
            raise RowError("tool_calls", f"{place} is not {_CALL}")
        name = function.get("name")
        if not isinstance(name, str) or name not in schemas:
            raise RowError(
                "tool_calls", f"{place}.function.name {show(name)} is not declared in tools: declare the tool"
            )
        _check_arguments(function.get("arguments"), f"{place}.function.arguments", schemas[name])
        if call["id"] in called:
            raise RowError("tool_calls", f"{place}.id {show(call['id'])} is used twice: give each call its own")
        called[call["id"]] = name
    return called


def _check_arguments(given: Any, where: str, schema: Validator) -> None:
    """Check arguments as OpenAI writes them, a string of JSON, or as the object itself."""
    try:
        arguments = given if isinstance(given, dict) else json.loads(given)
    except (TypeError, ValueError, RecursionError):
        raise RowError("tool_calls", f'{where} is not a string of JSON: write it as "{{\\"key\\": ...}}"') from None
    if not isinstance(arguments, dict):
        raise RowError("tool_calls", f"{where} holds {kind_of(arguments)}: write an object in JSON")
    try:
        problem = next(iter(schema.iter_errors(arguments)), None)
    except (Unresolvable, re.error, RecursionError) as error:
        hint = "a $ref must lie in the same schema, a pattern must be a regular expression"
        raise RowError("tools", f"{where}: the tool's schema cannot be used ({str(error)[:80]}): {hint}") from None
    if problem is not None:
        raise RowError(
            "tool_calls", f"{where} does not fit the tool's parameters, correct one of them: {problem.message[:120]}"
        )
