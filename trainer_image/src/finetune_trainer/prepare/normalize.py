"""Rewrites variants of OpenAI's message format into the one that training reads. No I/O.

The old `functions`, `function_call` and role `function` become tools; null fields, which OpenAI's own programs write,
are removed; schemas with Python's names of types become JSON schemas. Everything else stays as it is, for the checks.
"""

import json
import re
from typing import Any

from finetune_trainer.prepare.row_issues import RowError, describe_type, quote

_TYPES = {
    "dict": "object",
    "str": "string",
    "float": "number",
    "double": "number",
    "int": "integer",
    "long": "integer",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "set": "array",
}
"""JSON's names of types by those of Python."""
_PYTHON_TYPE = re.compile(rf'"type": "({"|".join(_TYPES)})\b', re.IGNORECASE)
_SCHEMA_KEYS = {"type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "not"}


def rewrite_messages(messages: Any, field: str) -> Any:
    """Return messages in the format that training reads.

    Raises:
        RowError: a content has parts other than text.
    """
    if not isinstance(messages, list):
        return messages
    rewritten_messages, call_id = [], ""
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            return messages
        rewritten = {key: value for key, value in message.items() if not _is_null_field(key, value)}
        if isinstance(rewritten.get("content"), list):
            rewritten["content"] = [_rewrite_part(part) for part in rewritten["content"]]
            _check_parts(rewritten["content"], f"{field}[{index}].content")
        if "loss_weight" in rewritten:
            _rewrite_loss_weight(rewritten, f"{field}[{index}]")
        if "function_call" in rewritten and "tool_calls" not in rewritten:
            call_id = f"call_{index}"
            function = rewritten.pop("function_call")
            rewritten["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
        elif rewritten.get("role") == "function":
            rewritten |= {"role": "tool", "tool_call_id": call_id}
        rewritten_messages.append(rewritten)
    return rewritten_messages


def _rewrite_loss_weight(message: dict[str, Any], field: str) -> None:
    """Replace the weight of a message under another name; only the assistant's messages are learned."""
    weight = message.pop("loss_weight")
    if message.get("role") == "assistant":
        message.setdefault("weight", weight)
    elif weight:
        raise RowError(
            "weight", f"{field}.loss_weight is {quote(weight)}: only assistant messages are learned, set it to 0"
        )


def _rewrite_part(part: Any) -> Any:
    """Return a text part whose text is in the field `text`."""
    if isinstance(part, dict) and part.get("type") == "text" and "text" not in part and "value" in part:
        return {name: value for name, value in part.items() if name != "value"} | {"text": part["value"]}
    return part


def rewrite_tools(tools: Any, functions: Any) -> Any:
    """Return the tools in OpenAI's format; the old `functions` and bare functions become tools."""
    tools = functions if tools is None else tools
    if not isinstance(tools, list):
        return tools
    return [_rewrite_tool(tool) for tool in tools]


def has_python_types(tools: Any) -> bool:
    """Return whether the schemas of tools name types as Python does."""
    return bool(_PYTHON_TYPE.search(tools if isinstance(tools, str) else json.dumps(tools, default=str)))


def _rewrite_tool(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return tool
    if "function" not in tool and "name" in tool and tool.get("type", "function") == "function":
        tool = {"function": {name: value for name, value in tool.items() if name != "type"}}
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("parameters"), dict):
        return {"type": "function"} | tool
    parameters = function["parameters"]
    if not parameters.keys() & _SCHEMA_KEYS and all(isinstance(schema, dict) for schema in parameters.values()):
        # The schemas of the arguments, without the object that has them.
        parameters = {"type": "object", "properties": parameters}
    return {"type": "function"} | tool | {"function": function | {"parameters": _rewrite_schema(parameters)}}


def _rewrite_schema(schema: Any) -> Any:
    """Return a schema with JSON's names of types."""
    if isinstance(schema, list):
        return [_rewrite_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    rewritten = {name: _rewrite_schema(value) for name, value in schema.items()}
    if isinstance(schema.get("type"), str):
        rewritten |= _rewrite_type(schema["type"])
    return rewritten


def _rewrite_type(name: str) -> dict[str, Any]:
    """Return the keywords of a schema for a type: `str, optional` is a string, `List[int]` an array of integers."""
    base, _, inner = name.partition(",")[0].strip().partition("[")
    kind = _TYPES.get(base.lower())
    if kind is None:
        return {"type": name}
    item = _TYPES.get(inner.removesuffix("]").strip().lower())
    return {"type": kind} | ({"items": {"type": item}} if kind == "array" and item else {})


def _is_null_field(key: str, value: Any) -> bool:
    return (value is None and key not in ("role", "content")) or (value == [] and key == "annotations")


def _check_parts(parts: list[Any], field: str) -> None:
    """Check that a content has text parts only; chat templates decide what they make of several."""
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = f"of type {part.get('type')}" if isinstance(part, dict) else describe_type(part)
            raise RowError(
                "content",
                f'{field}[{index}] is {kind}: only text is supported, write {{"type": "text", "text": ...}}',
            )
