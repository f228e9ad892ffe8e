"""Hashes that find examples with the same prompt, input or content: 64 bits each, for a million rows. No I/O."""

import hashlib
import json
from typing import Any

from finetune_pod.requests import find_last_answer

Example = dict[str, Any]


def hash_example(example: Example) -> int:
    """Return the hash of a whole example."""
    return _hash(example)


def hash_prompt(example: Example) -> int:
    """Return the hash of an example's prompt: all messages before the last answer, but for system messages."""
    messages = example.get("messages", example.get("prompt"))
    if messages is None:
        return _hash(example["text"])
    if "messages" in example:
        messages = messages[: find_last_answer(messages)]
    return _hash([message for message in messages if message["role"] not in ("system", "developer")])


def hash_input(example: Example) -> int:
    """Return the hash of everything in an example but its answer, preference or label.

    Two different examples with the same input contradict each other.
    """
    if "messages" in example:
        return _hash([example["messages"][: find_last_answer(example["messages"])], example.get("tools")])
    if "chosen" in example:
        return _hash([example["prompt"], sorted(json.dumps(example[key]) for key in ("chosen", "rejected"))])
    if "label" in example:
        return _hash([example["prompt"], example["completion"]])
    return _hash(example.get("prompt", example.get("text")))


def _hash(value: Any) -> int:
    text = json.dumps(value, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
