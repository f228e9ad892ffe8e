"""Checks messages in OpenAI's chat format. Pure: values in, the first mistake out."""

from typing import Any

from finetune_trainer.prepare.row_issues import RowError, kind_of, show
from finetune_trainer.prepare.tools import Schemas, check_calls

Message = dict[str, Any]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "weight"}


def check_messages(messages: Any, schemas: Schemas, where: str) -> None:
    """Check a list of messages, one after the other. Calls in the last message need no answer: they are what is learnt.

    Args:
        messages: what should be a list of messages.
        schemas: the tools that may be called.
        where: the field's name, for the message.

    Raises:
        RowError: the first mistake.
    """
    if not isinstance(messages, list) or not messages:
        kind = "empty" if isinstance(messages, list) else kind_of(messages)
        raise RowError("messages", f'{where} is {kind}: give a list of {{"role": ..., "content": ...}}')
    waiting: dict[str, str] = {}
    for index, message in enumerate(messages):
        _check_message(message, f"{where}[{index}]", schemas, waiting)
    if waiting and messages[-1].get("tool_calls") is None:
        raise RowError("tool_calls", _unanswered(f"the end of {where}", next(iter(waiting))))


def _check_message(message: Any, where: str, schemas: Schemas, waiting: dict[str, str]) -> None:
    if not isinstance(message, dict):
        raise RowError(
            "messages", f'{where} is {kind_of(message)}, not an object: write {{"role": ..., "content": ...}}'
        )
    role = message.get("role")
    if role not in _ROLES:
        raise RowError("role", f"{where}.role {show(role)} is not one of {', '.join(_ROLES)}: correct it")
    unknown = sorted(message.keys() - _KEYS)
    if unknown:
        raise RowError("field", f"{where} has an unknown field {show(unknown[0])}: leave it out")
    _check_content(message, where)
    _check_fields(message, where)
    if role == "tool":
        _check_answer(message, where, waiting)
    elif waiting:
        raise RowError("tool_calls", _unanswered(where, next(iter(waiting))))
    if "tool_calls" in message:
        waiting |= check_calls(message["tool_calls"], where, schemas)


def _check_content(message: Message, where: str) -> None:
    role, content, calls = message["role"], message.get("content"), message.get("tool_calls")
    if content is None and calls:
        return
    if content is None:
        raise RowError("content", f"{where}.content is missing or null: give a text (null only beside tool_calls)")
    if not isinstance(content, str):
        raise RowError("content", f"{where}.content is {kind_of(content)}: write it as a text")
    if not content.strip() and not calls and role != "tool":
        raise RowError("content", f"{where}.content is empty: write a text, or leave the message out")


def _check_fields(message: Message, where: str) -> None:
    role = message["role"]
    if "tool_calls" in message and role != "assistant":
        raise RowError("tool_calls", f"{where}.tool_calls: only the assistant calls tools, correct the role")
    if "tool_call_id" in message and role != "tool":
        raise RowError("tool_calls", f"{where}.tool_call_id: only a message of role tool answers a call")
    if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
        raise RowError("weight", f"{where}.weight must be 0 or 1, on messages of the assistant only")
    if "name" in message and (not isinstance(message["name"], str) or not message["name"].strip()):
        raise RowError("name", f"{where}.name {show(message['name'])} is no name: write a text, or leave it out")


def _check_answer(message: Message, where: str, waiting: dict[str, str]) -> None:
    """Take the call that a tool's message answers from those that wait."""
    answered = message.get("tool_call_id")
    if not isinstance(answered, str) or answered not in waiting:
        raise RowError(
            "tool_calls",
            f"{where}.tool_call_id {show(answered)} answers no open call: give it the id of a call before it",
        )
    called = waiting.pop(answered)
    if message.get("name", called) != called:
        raise RowError("name", f"{where}.name {show(message['name'])} is not the tool called, {called}: correct it")


def _unanswered(where: str, call: str) -> str:
    return f"{where}: the tool call {show(call)} has no answer before it: add a message of role tool"
