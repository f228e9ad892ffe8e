"""Rewrites OpenAI's other ways to write messages into the one that training reads. Pure.

The old `functions`, `function_call` and role `function` become tools; parts of text become one text; fields without
a value, which OpenAI's own programs write, go. Anything else stays as it is, for the checks.
"""

from typing import Any

from finetune_trainer.prepare.row_issues import RowError, kind_of

_CALLED = "call_{}"


def rewrite_messages(messages: Any, where: str) -> Any:
    """Return messages in the one way.

    Raises:
        RowError: a content has parts that are no text.
    """
    if not isinstance(messages, list):
        return messages
    rewritten, called = [], ""
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            return messages
        one = {key: value for key, value in message.items() if not _is_empty(key, value)}
        if isinstance(one.get("content"), list):
            one["content"] = _join_parts(one["content"], f"{where}[{index}].content")
        if "function_call" in one and "tool_calls" not in one:
            called = _CALLED.format(index)
            one["tool_calls"] = [{"id": called, "type": "function", "function": one.pop("function_call")}]
        elif one.get("role") == "function":
            one |= {"role": "tool", "tool_call_id": called}
        rewritten.append(one)
    return rewritten


def rewrite_tools(tools: Any, functions: Any) -> Any:
    """Return the tools, or the old functions as tools."""
    if tools is None and isinstance(functions, list):
        return [{"type": "function", "function": function} for function in functions]
    return functions if tools is None else tools


def _is_empty(key: str, value: Any) -> bool:
    return (value is None and key not in ("role", "content")) or (value == [] and key == "annotations")


def _join_parts(parts: list[Any], where: str) -> str:
    """Join texts by line ends, as vLLM does with what clients send."""
    for index, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else kind_of(part)
        if kind != "text" or not isinstance(part.get("text"), str):
            raise RowError(
                "content",
                f'{where}[{index}] is of type {kind}: give {{"type": "text", "text": ...}}, only text is learnt',
            )
    return "\n".join(part["text"] for part in parts)
