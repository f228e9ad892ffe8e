"""Public names in, vLLM's names out, and back again: the bodies of OpenAI's API. Pure."""

import json
from typing import Any


class RequestError(Exception):
    """A request that never reaches vLLM: HTTP status, OpenAI's error type, message."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        """Keep the parts of the answer."""
        super().__init__(message)
        self.status = status
        self.kind = kind


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


def error_body(error: RequestError) -> bytes:
    """Return an error in OpenAI's shape."""
    content = {"message": str(error), "type": error.kind, "param": None, "code": error.status}
    return json.dumps({"error": content}).encode()


def model_list(names: list[str], created: int) -> bytes:
    """Return the body of `/v1/models`."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": "finetune.dev"} for name in names]
    return json.dumps({"object": "list", "data": data}).encode()


class NameRewriter:
    """Puts the public name into a response, whole or in pieces cut anywhere."""

    def __init__(self, version: str, public: str) -> None:
        """Rewrite the `model` field from one name to the other."""
        self._old = f'"model":"{version}"'.encode()
        self._new = f'"model":"{public}"'.encode()
        self._held = b""

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """Return what can be sent on; a possible beginning of the field waits for the next piece."""
        data = (self._held + data).replace(self._old, self._new)
        held = 0 if last else _overlap(data, self._old)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]


def _overlap(data: bytes, pattern: bytes) -> int:
    """Return the length of the longest end of the data that begins the pattern."""
    for length in range(min(len(data), len(pattern) - 1), 0, -1):
        if data.endswith(pattern[:length]):
            return length
    return 0
