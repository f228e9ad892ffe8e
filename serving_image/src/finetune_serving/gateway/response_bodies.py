"""Reads and rewrites the bodies of vLLM's responses: clients use public model names, vLLM its own. No I/O."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_AFTER_MODEL = (b',"choices":', b',"object":"response"')
"""What follows the model's name in vLLM's responses, but not in what they repeat of the request, such as metadata."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one request."""

    prompt: int
    generated: int


def build_model(name: str, created: int, max_model_len: int) -> dict[str, Any]:
    """Return a model in OpenAI's format, with vLLM's additional field `max_model_len`."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "finetune.dev",
        "max_model_len": max_model_len,
    }


def build_model_list(names: Sequence[str], created: int, max_model_len: int) -> dict[str, Any]:
    """Return the list of models in OpenAI's format."""
    return {"object": "list", "data": [build_model(name, created, max_model_len) for name in names]}


def read_usage(body: bytes) -> Usage | None:
    """Return the usage in a response or in the data of one event of a stream; None if it has none."""
    if b'"usage":' not in body:
        return None
    try:
        content = json.loads(body)
        usage = content.get("response", content)["usage"]
        if "input_tokens" in usage:
            return Usage(int(usage["input_tokens"]), int(usage["output_tokens"]))
        return Usage(int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def replace_model_name(body: bytes, served: str, public: str) -> bytes:
    """Replace vLLM's model name by the public one. Texts cannot match: inside of JSON strings quotes are escaped."""
    for follower in _AFTER_MODEL:
        body = body.replace(
            f'"model":"{served}"'.encode() + follower, f'"model":{json.dumps(public)}'.encode() + follower
        )
    return body


class EventStream:
    """Rewrites a stream of server-sent events that arrives in arbitrary chunks."""

    def __init__(self, served: str, public: str, *, keep_usage: bool) -> None:
        """Replace the served by the public name; `keep_usage` keeps the event that only holds the usage."""
        self._served, self._public, self._keep_usage = served, public, keep_usage
        self._incomplete = b""
        self.usage: Usage | None = None

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """Return the events that are complete; with the last chunk also the rest."""
        *events, self._incomplete = (self._incomplete + data).split(b"\n\n")
        output = b"".join(event + b"\n\n" for event in events if self._is_kept(event))
        if last and self._is_kept(self._incomplete):
            output += self._incomplete
        return replace_model_name(output, self._served, self._public)

    def _is_kept(self, event: bytes) -> bool:
        """Return whether an event goes to the client, and store its usage."""
        usage = read_usage(event.partition(b"data: ")[2])
        self.usage = usage or self.usage
        return usage is None or self._keep_usage or b'"choices":[]' not in event
