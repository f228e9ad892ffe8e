"""Public names in, vLLM's names out, and back again: the bodies of OpenAI's API. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api.access import RequestLimits

_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")


class RequestError(Exception):
    """A request that never reaches vLLM: HTTP status, OpenAI's error type, message."""

    def __init__(self, status: int, kind: str, message: str, retry_after: int | None = None) -> None:
        """Keep the parts of the answer; `retry_after` is in seconds."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after


@dataclass(frozen=True)
class Usage:
    """Tokens of one request."""

    prompt: int
    generated: int


def read_body(body: bytes) -> dict[str, Any]:
    """Return the request's JSON object.

    Raises:
        RequestError: it is none, or names no model.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "invalid_request_error", "the body is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise RequestError(400, "invalid_request_error", "the body names no model")
    return request


def limit_tokens(request: dict[str, Any], limits: RequestLimits) -> dict[str, Any]:
    """Return the request with the server's limit where it names none.

    Raises:
        RequestError: it asks for more.
    """
    most = limits.max_tokens
    if most is None:
        return request
    given = [request[name] for name in _TOKEN_FIELDS if isinstance(request.get(name), int)]
    if any(value > most for value in given):
        raise RequestError(400, "invalid_request_error", f"max_tokens is above {most}, the most of this server")
    return request if given else request | {"max_tokens": most}


def with_usage(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request whose stream ends with its usage, which is counted here."""
    if not request.get("stream"):
        return request
    options = request.get("stream_options")
    return request | {"stream_options": (options if isinstance(options, dict) else {}) | {"include_usage": True}}


def wants_usage(request: dict[str, Any]) -> bool:
    """Tell whether the client itself asked for the usage at the end of its stream."""
    options = request.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def error_body(error: RequestError) -> bytes:
    """Return an error in OpenAI's shape."""
    content = {"message": str(error), "type": error.kind, "param": None, "code": error.status}
    return json.dumps({"error": content}).encode()


def is_not_finite(status: int, body: bytes) -> bool:
    """Tell whether vLLM blames the client for likelihoods that are no numbers: it is the model that is broken."""
    return status == 400 and b"Out of range float values are not JSON compliant" in body


def model_list(names: Sequence[str], created: int, max_model_len: int) -> bytes:
    """Return the body of `/v1/models`, with vLLM's own field for the tokens that a model takes."""
    about = {"object": "model", "created": created, "owned_by": "finetune.dev", "max_model_len": max_model_len}
    data = [{"id": name} | about for name in names]
    return json.dumps({"object": "list", "data": data}).encode()


def read_usage(body: bytes) -> Usage | None:
    """Return the usage that an answer or one event of a stream tells; None where it tells none."""
    if b'"usage":' not in body:
        return None
    try:
        usage = json.loads(body)["usage"]
        return Usage(int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0))
    except (ValueError, TypeError, KeyError):
        return None


def rename(body: bytes, served: str, public: str) -> bytes:
    """Put the public name in place of vLLM's. Inside of texts quotes are escaped, so nothing else looks like it."""
    return body.replace(f'"model":"{served}"'.encode(), f'"model":{json.dumps(public)}'.encode())


class EventStream:
    """Server-sent events that come in pieces cut anywhere, and go on under the public name."""

    def __init__(self, served: str, public: str, *, keep_usage: bool) -> None:
        """Rename; the event that holds nothing but the usage goes on only where the client asked for it."""
        self._served, self._public, self._keep_usage = served, public, keep_usage
        self._held = b""
        self.usage: Usage | None = None

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """Return the events that are whole; with the last piece, all that is left."""
        *events, self._held = (self._held + data).split(b"\n\n")
        sent = b"".join(event + b"\n\n" for event in events if self._goes_on(event))
        if last and self._goes_on(self._held):
            sent += self._held
        return rename(sent, self._served, self._public)

    def _goes_on(self, event: bytes) -> bool:
        usage = read_usage(event.removeprefix(b"data: "))
        self.usage = usage or self.usage
        return usage is None or self._keep_usage or b'"choices":[]' not in event
