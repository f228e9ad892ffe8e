"""Hashes that tell which examples ask, decide or say the same. Pure; 64 bits each, for a million rows at a time."""

import hashlib
import json
from typing import Any

from finetune_trainer.prepare.formats import Example


def hash_content(example: Example) -> int:
    """Return the hash of a whole example."""
    return _hash(example)


def hash_question(example: Example) -> int:
    """Return the hash of what an example asks: all before its last answer, without the system's words."""
    messages = example.get("messages", example.get("prompt"))
    if messages is None:
        return _hash(example["text"])
    if "messages" in example:
        messages = messages[: _last_answer(messages)]
    return _hash([one for one in messages if one["role"] not in ("system", "developer")])


def hash_statement(example: Example) -> int:
    """Return the hash of what an example decides about, which another one may decide in another way."""
    if "messages" in example:
        return _hash([example["messages"][: _last_answer(example["messages"])], example.get("tools")])
    if "chosen" in example:
        return _hash([example["prompt"], sorted(json.dumps(example[key]) for key in ("chosen", "rejected"))])
    if "label" in example:
        return _hash([example["prompt"], example["completion"]])
    return _hash(example.get("prompt", example.get("text")))


def _last_answer(messages: list[dict[str, Any]]) -> int:
    return max(index for index, message in enumerate(messages) if message["role"] == "assistant")


def _hash(value: Any) -> int:
    text = json.dumps(value, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
