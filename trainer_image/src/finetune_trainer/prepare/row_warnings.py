"""Warns of what a row's author may not have meant, by the example alone. Pure."""

import re
from collections.abc import Iterator

from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.messages import Message
from finetune_trainer.prepare.row_issues import Warned

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
"""Control characters, and the sign that stands for bytes which could not be decoded."""


def find_cautions(example: Example, *, is_chat: bool) -> Iterator[Warned]:
    """Yield the warnings about an example; of a chat also those about who speaks."""
    if is_chat and "messages" in example:
        yield from _find_missing_roles(example["messages"])
    for place, content in contents_of(example):
        found = _CONTROL.search(content)
        if found:
            code = f"U+{ord(found.group()):04X}"
            yield Warned("control", f"{place} holds the character {code}: is the text damaged? Take it out")


def _find_missing_roles(messages: list[Message]) -> Iterator[Warned]:
    roles = [message["role"] for message in messages]
    if "system" not in roles and "developer" not in roles:
        yield Warned("system", "no message of role system: give the one that the model will be served with, if any")
    if "user" not in roles:
        yield Warned("user", "no message of role user: the model answers to nothing")
    if roles[-1] != "assistant":
        yield Warned("unanswered", f"the last message is of role {roles[-1]}: it is not learnt, add its answer")


def contents_of(example: Example) -> Iterator[tuple[str, str]]:
    """Yield place and text of everything in an example that people wrote."""
    if "text" in example:
        yield "text", example["text"]
    for field in ("messages", "prompt", "completion", "chosen", "rejected"):
        for index, message in enumerate(example.get(field, ())):
            if message.get("content"):
                yield f"{field}[{index}].content", message["content"]
