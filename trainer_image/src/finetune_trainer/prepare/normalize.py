"""Rewrites variants of OpenAI's message format into the one that training reads. No I/O.

The old `functions`, `function_call` and role `function` become tools; null fields, which OpenAI's own programs write,
are removed. Everything else stays as it is, for the checks.
"""

from typing import Any

from finetune_trainer.prepare.row_issues import RowError, describe_type


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
            _check_parts(rewritten["content"], f"{field}[{index}].content")
        if "function_call" in rewritten and "tool_calls" not in rewritten:
            call_id = f"call_{index}"
            function = rewritten.pop("function_call")
            rewritten["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
        elif rewritten.get("role") == "function":
            rewritten |= {"role": "tool", "tool_call_id": call_id}
        rewritten_messages.append(rewritten)
    return rewritten_messages


def rewrite_tools(tools: Any, functions: Any) -> Any:
    """Return the tools, or the old `functions` as tools."""
    if tools is None and isinstance(functions, list):
        return [{"type": "function", "function": function} for function in functions]
    return functions if tools is None else tools


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
