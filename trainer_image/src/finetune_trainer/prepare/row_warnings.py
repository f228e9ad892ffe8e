"""Warnings that follow from an example alone. No I/O."""

import re
from collections.abc import Iterator

from finetune_pod.requests import get_parts

from finetune_trainer.prepare.formats import MESSAGE_FIELDS, Example
from finetune_trainer.prepare.messages import Message
from finetune_trainer.prepare.row_issues import RowWarning

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
"""Control characters, and the replacement character for bytes that could not be decoded."""


def find_warnings(example: Example, *, is_chat: bool) -> Iterator[RowWarning]:
    """Yield the warnings about an example; `is_chat` also checks which roles its messages have."""
    if is_chat and "messages" in example:
        yield from _find_missing_roles(example["messages"])
    for field, content in iterate_contents(example):
        match = _CONTROL.search(content)
        if match:
            code = f"U+{ord(match.group()):04X}"
            yield RowWarning("control", f"{field} contains the character {code}: is the text damaged? Remove it")


def _find_missing_roles(messages: list[Message]) -> Iterator[RowWarning]:
    roles = [message["role"] for message in messages]
    if "system" not in roles and "developer" not in roles:
        yield RowWarning(
            "system", "no message has the role system: add the system message that clients will send, if any"
        )
    if "user" not in roles:
        yield RowWarning("user", "no message has the role user: the assistant answers no question")
    if roles[-1] != "assistant":
        yield RowWarning("unanswered", f"the last message has the role {roles[-1]} and is ignored: add its answer")


def iterate_contents(example: Example) -> Iterator[tuple[str, str]]:
    """Yield the field and the text of every content in an example."""
    if "text" in example:
        yield "text", example["text"]
    for field in MESSAGE_FIELDS:
        for index, message in enumerate(example.get(field, ())):
            if message.get("content"):
                yield f"{field}[{index}].content", "\n".join(get_parts(message["content"]))
