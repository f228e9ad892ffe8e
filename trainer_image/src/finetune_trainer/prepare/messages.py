"""Checks messages in OpenAI's chat format. No I/O."""

from typing import Any

from finetune_pod.requests import REASONING_FIELDS, get_parts

from finetune_trainer.prepare.row_issues import RowError, describe_type, quote
from finetune_trainer.prepare.tools import Validators, check_calls

Message = dict[str, Any]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id", "weight", *REASONING_FIELDS}


def check_messages(messages: Any, validators: Validators, field: str) -> None:
    """Check a list of messages. Calls in the last message need no answer: they are the training target.

    Args:
        messages: the value to check.
        validators: the declared tools.
        field: the name of the field, for error messages.

    Raises:
        RowError: the first error.
    """
    if not isinstance(messages, list) or not messages:
        kind = "empty" if isinstance(messages, list) else describe_type(messages)
        raise RowError("messages", f'{field} is {kind}: write a list of {{"role": ..., "content": ...}}')
    unanswered: dict[str, str] = {}
    for index, message in enumerate(messages):
        _check_message(message, f"{field}[{index}]", validators, unanswered)
    if unanswered and messages[-1].get("tool_calls") is None:
        raise RowError("tool_calls", _describe_unanswered(f"the end of {field}", next(iter(unanswered))))


def _check_message(message: Any, field: str, validators: Validators, unanswered: dict[str, str]) -> None:
    if not isinstance(message, dict):
        raise RowError(
            "messages", f'{field} is {describe_type(message)}, not an object: write {{"role": ..., "content": ...}}'
        )
    role = message.get("role")
    if role not in _ROLES:
        raise RowError("role", f"{field}.role {quote(role)} is not one of {', '.join(_ROLES)}: correct it")
    unknown = sorted(message.keys() - _FIELDS)
    if unknown:
        raise RowError("field", f"{field} has the unknown field {quote(unknown[0])}: remove it")
    _check_content(message, field)
    _check_fields(message, field)
    if role == "tool":
        _check_answer(message, field, unanswered)
    elif unanswered:
        raise RowError("tool_calls", _describe_unanswered(field, next(iter(unanswered))))
    if "tool_calls" in message:
        unanswered |= check_calls(message["tool_calls"], field, validators)


def _check_content(message: Message, field: str) -> None:
    role, content, calls = message["role"], message.get("content"), message.get("tool_calls")
    if content is None and calls:
        return
    if content is None:
        raise RowError(
            "content", f"{field}.content is missing or null: write a string (null is allowed only with tool_calls)"
        )
    if not isinstance(content, str | list):
        raise RowError("content", f"{field}.content is {describe_type(content)}: write a string")
    if not any(part.strip() for part in get_parts(content)) and not calls and role != "tool":
        raise RowError("content", f"{field}.content is empty: write some text, or remove the message")


def _check_fields(message: Message, field: str) -> None:
    role = message["role"]
    if "tool_calls" in message and role != "assistant":
        raise RowError("tool_calls", f"{field}.tool_calls: only assistant messages have tool calls, correct the role")
    if "tool_call_id" in message and role != "tool":
        raise RowError(
            "tool_calls", f"{field}.tool_call_id: only messages of role tool answer a tool call, correct the role"
        )
    if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
        raise RowError(
            "weight", f"{field}.weight must be 0 or 1, and only assistant messages may have it: correct or remove it"
        )
    for name in REASONING_FIELDS:
        if name in message and (role != "assistant" or not isinstance(message[name], str)):
            raise RowError(
                "reasoning", f"{field}.{name} must be a string, and only assistant messages may have it: correct it"
            )
    if "name" in message and (not isinstance(message["name"], str) or not message["name"].strip()):
        raise RowError("name", f"{field}.name is {quote(message['name'])}: write a non-empty string, or remove it")


def _check_answer(message: Message, field: str, unanswered: dict[str, str]) -> None:
    """Check the answer to a tool call, and remove the call from the unanswered ones."""
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str) or call_id not in unanswered:
        raise RowError(
            "tool_calls",
            f"{field}.tool_call_id {quote(call_id)} matches no unanswered tool call before it: use the id of one",
        )
    tool = unanswered.pop(call_id)
    if message.get("name", tool) != tool:
        raise RowError(
            "name", f"{field}.name {quote(message['name'])} is not the name of the called tool, {tool}: correct it"
        )


def _describe_unanswered(field: str, call: str) -> str:
    return f"the tool call {quote(call)} has no answer before {field}: add a message of role tool"
