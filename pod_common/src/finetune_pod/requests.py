"""Normalizes messages and tools as vLLM does before it applies a chat template. No I/O.

The rules are those of vLLM 0.32 (`ChatCompletionRequest`, `parse_chat_messages`, `safe_apply_chat_template`);
tests/contract compares both.
"""

import json
from typing import Any

Message = dict[str, Any]
Tool = dict[str, Any]


def normalize_tools(tools: list[Tool] | None) -> list[Tool] | None:
    """Return the tools with the keys of vLLM's request model in its order; None if there are none.

    `description` and `parameters` are null if they are missing, unknown keys are dropped.
    """
    return [{"type": "function", "function": _normalize_function(tool["function"])} for tool in tools or []] or None


def _normalize_function(function: dict[str, Any]) -> dict[str, Any]:
    normalized = {name: function.get(name) for name in ("name", "description", "parameters")}
    return normalized if function.get("strict") is None else normalized | {"strict": function["strict"]}


def normalize_messages(messages: list[Message], *, has_content_parts: bool, has_developer: bool) -> list[Message]:
    """Return the messages as a chat template gets them.

    Args:
        messages: in OpenAI's format; the arguments of tool calls are JSON or objects.
        has_content_parts: whether the template iterates over the parts of a content; otherwise contents are text.
        has_developer: whether the template knows the role developer; otherwise such messages become the system message.
    """
    normalized = [_normalize_message(message, has_content_parts=has_content_parts) for message in messages]
    if has_developer or all(message["role"] != "developer" for message in messages):
        return normalized
    for message in normalized:
        if message["role"] == "developer":
            message["role"] = "system"
            message.pop("tools", None)
    return _merge_system_messages(normalized)


REASONING_FIELDS = ("reasoning_content", "reasoning")
"""The fields in which an assistant's message may have its reasoning."""


def get_reasoning(message: Message) -> str | None:
    """Return the text in which the assistant reasons before its answer; None without one."""
    reasoning = message.get("reasoning")
    return message.get("reasoning_content") if reasoning is None else reasoning


def get_parts(content: Any) -> list[str]:
    """Return the texts of a message's content: a string, a list of text parts, or null."""
    if isinstance(content, str):
        return [content]
    return [part if isinstance(part, str) else part["text"] for part in content or []]


def find_last_answer(messages: list[Message]) -> int:
    """Return the index of the assistant's last message.

    Raises:
        ValueError: the assistant has none.
    """
    return max(index for index, message in enumerate(messages) if message["role"] == "assistant")


def find_answers(messages: list[Message]) -> list[int]:
    """Return the indexes of the assistant's messages to learn; not those whose `weight` is 0, as in OpenAI's format."""
    return [
        index for index, message in enumerate(messages) if message["role"] == "assistant" and message.get("weight") != 0
    ]


def parse_arguments(messages: list[Message]) -> list[Message]:
    """Return the messages with the arguments of tool calls as objects; in OpenAI's format they are JSON."""
    return [
        message | {"tool_calls": [_parse_call(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _parse_call(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call["function"].get("arguments")
    if not isinstance(arguments, str):
        return call
    return call | {"function": call["function"] | {"arguments": json.loads(arguments or "{}")}}


def _normalize_message(message: Message, *, has_content_parts: bool) -> Message:
    role, parts = message["role"], get_parts(message.get("content"))
    keeps_parts = has_content_parts and role != "tool"
    content: Any = [{"type": "text", "text": part} for part in parts] if keeps_parts else "\n".join(parts)
    normalized: Message = {"role": role, "content": content}
    if role == "assistant":
        if message.get("tool_calls"):
            normalized["tool_calls"] = [_normalize_call(call) for call in message["tool_calls"]]
        if (reasoning := get_reasoning(message)) is not None:
            normalized |= {"reasoning": reasoning, "reasoning_content": reasoning}
    elif role == "tool" and "tool_call_id" in message:
        normalized["tool_call_id"] = message["tool_call_id"]
    elif role == "developer":
        normalized["tools"] = None
    if isinstance(message.get("name"), str):
        normalized["name"] = message["name"]
    return normalized


def _normalize_call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a tool call with its arguments as an object; arguments that are no JSON object become an empty one."""
    function = call["function"]
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    return {
        "id": call["id"],
        "function": {"arguments": arguments if isinstance(arguments, dict) else {}, "name": function["name"]},
        "type": "function",
    }


def _merge_system_messages(messages: list[Message]) -> list[Message]:
    """Return the messages with one system message at the beginning."""
    system = [message for message in messages if message["role"] == "system"]
    if len(system) == 1 and messages[0] is system[0]:
        return messages
    texts = ["\n".join(get_parts(message["content"])) for message in system]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(message for message in messages if message["role"] != "system")]
