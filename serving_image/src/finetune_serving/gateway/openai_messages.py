"""Reads and rewrites the bodies of OpenAI's API: clients use public model names, vLLM its own. No I/O."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api.access import RequestLimits
from finetune_pod.template import THINKING_SWITCHES

_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")


class RequestError(Exception):
    """A request that fails in the gateway: HTTP status, OpenAI's error type, message."""

    def __init__(self, status: int, kind: str, message: str, retry_after: int | None = None) -> None:
        """Store the parts of the response; `retry_after` is in seconds."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after


@dataclass(frozen=True)
class Usage:
    """Tokens of one request."""

    prompt: int
    generated: int


def read_request(body: bytes) -> dict[str, Any]:
    """Return the request's JSON object.

    Raises:
        RequestError: the body is not a JSON object with a `model`.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "invalid_request_error", "the body is not valid JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        message = "the body must be a JSON object with the field model, a string"
        raise RequestError(400, "invalid_request_error", message)
    return request


def limit_tokens(request: dict[str, Any], limits: RequestLimits) -> dict[str, Any]:
    """Return the request, with the server's maximum as `max_tokens` if the request sets none.

    Raises:
        RequestError: the request sets more than the maximum.
    """
    maximum = limits.max_tokens
    if maximum is None:
        return request
    given = {name: request[name] for name in _TOKEN_FIELDS if isinstance(request.get(name), int)}
    for name, value in given.items():
        if value > maximum:
            raise RequestError(400, "invalid_request_error", f"{name} must be at most {maximum} on this server")
    return request if given else request | {"max_tokens": maximum}


def switch_thinking_off(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request for a chat with thinking switched off, unless it sets the switch itself."""
    given = request.get("chat_template_kwargs")
    if request.get("reasoning_effort") is not None or not isinstance(given, dict | None):
        return request  # vLLM takes the switch from the effort, and refuses other kwargs.
    return request | {"chat_template_kwargs": dict.fromkeys(THINKING_SWITCHES, False) | (given or {})}


def include_usage(request: dict[str, Any]) -> dict[str, Any]:
    """Return the request; if it is for a stream, with the option to end the stream with its usage."""
    if not request.get("stream"):
        return request
    options = request.get("stream_options")
    return request | {"stream_options": (options if isinstance(options, dict) else {}) | {"include_usage": True}}


def has_include_usage(request: dict[str, Any]) -> bool:
    """Return whether the client itself requests the usage at the end of its stream."""
    options = request.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def build_error(error: RequestError) -> bytes:
    """Return the body of an error response in OpenAI's format."""
    content = {"message": str(error), "type": error.kind, "param": None, "code": error.status}
    return json.dumps({"error": content}).encode()


def is_non_finite_error(status: int, body: bytes) -> bool:
    """Return whether vLLM blames the client for logprobs that are not finite. The cause is the model."""
    return status == 400 and b"Out of range float values are not JSON compliant" in body


def build_model_list(names: Sequence[str], created: int, max_model_len: int) -> bytes:
    """Return the response body of `/v1/models`, with vLLM's additional field `max_model_len`."""
    shared = {"object": "model", "created": created, "owned_by": "finetune.dev", "max_model_len": max_model_len}
    data = [{"id": name} | shared for name in names]
    return json.dumps({"object": "list", "data": data}).encode()


def read_usage(body: bytes) -> Usage | None:
    """Return the usage in a response or in one event of a stream; None if it has none."""
    if b'"usage":' not in body:
        return None
    try:
        usage = json.loads(body)["usage"]
        return Usage(int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0))
    except (ValueError, TypeError, KeyError):
        return None


def replace_model_name(body: bytes, served: str, public: str) -> bytes:
    """Replace vLLM's model name by the public one. Texts cannot match: inside of JSON strings quotes are escaped."""
    return body.replace(f'"model":"{served}"'.encode(), f'"model":{json.dumps(public)}'.encode())


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
        usage = read_usage(event.removeprefix(b"data: "))
        self.usage = usage or self.usage
        return usage is None or self._keep_usage or b'"choices":[]' not in event
