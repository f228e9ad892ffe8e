"""The ASGI middleware in front of every route of vLLM: a list of paths, and public model names."""

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from finetune_api.routes import BASE_NAME, LOADED_PATH

from finetune_serving.hosting import Hosting
from finetune_serving.metrics import REQUESTS, SECONDS
from finetune_serving.openai_messages import NameRewriter, RequestError, error_body, model_list, read_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_COMPLETIONS = {"/v1/chat/completions", "/v1/completions"}
_PASSED = {"/metrics", "/health", "/readyz", LOADED_PATH}
_LARGEST_BODY = 8 << 20


class Gateway:
    """Everything that is not on the list does not exist."""

    def __init__(self, app: App, hosting: Hosting) -> None:
        """Stand in front of `app`."""
        self._app, self._hosting = app, hosting
        self._created = int(time.time())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request; what is not HTTP (a WebSocket) gets no answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._handle(scope, receive, send)

    async def _handle(self, scope: Message, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in _COMPLETIONS and method == "POST":
            try:
                await self._complete(scope, receive, send)
            except RequestError as error:
                await _answer(send, error.status, error_body(error))
        elif path == "/v1/models" and method == "GET":
            names = [BASE_NAME, *sorted(self._hosting.answering)]
            await _answer(send, 200, model_list(names, self._created))
        elif path in _PASSED and method == "GET":
            await self._app(scope, receive, send)
        else:
            missing = RequestError(404, "invalid_request_error", f"there is no {method} {path[:200]}")
            await _answer(send, missing.status, error_body(missing))

    async def _complete(self, scope: Message, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        model, version, code = "unknown", "", 0
        try:
            request = read_body(await _read_all(receive))
            model, version, name = self._find(request["model"])
            code = await self._forward(scope, request | {"model": name}, receive, _Answer(send, name, model))
        except RequestError as error:
            code = error.status
            raise
        finally:
            REQUESTS.labels(model, version, str(code or "aborted")).inc()
            SECONDS.labels(model).observe(time.monotonic() - began)

    def _find(self, name: str) -> tuple[str, str, str]:
        """Return the public name, the version that answers, and vLLM's name for it; the base model has no version.

        Raises:
            RequestError: there is no such model, or it is not loaded yet.
        """
        if name == BASE_NAME:
            return name, "", name
        version = self._hosting.answering.get(name)
        if version is not None:
            return name, version.route.version, version.route.served_name
        if name in self._hosting.wanted:
            raise RequestError(503, "server_error", f"{name} is not loaded yet: try again")
        names = ", ".join([BASE_NAME, *sorted(self._hosting.answering)])
        raise RequestError(404, "invalid_request_error", f"there is no model {name[:100]!r} here; there are {names}")

    async def _forward(self, scope: Message, request: Message, receive: Receive, answer: "_Answer") -> int:
        """Hand the request to vLLM under its own name for the model; return the HTTP status."""
        body = json.dumps(request).encode()
        headers = [(key, value) for key, value in scope["headers"] if key != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(dict(scope) | {"headers": headers}, replay, answer.send)
        return answer.status


class _Answer:
    """Sends vLLM's answer on under the public name; streams go on piece by piece."""

    def __init__(self, send: Send, version: str, public: str) -> None:
        self._send = send
        self._rewriter = NameRewriter(version, public)
        self._start: Message = {}
        self._whole = b""
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._start = message
            if self._is_stream():
                await self._send(message)
            return
        last = not message.get("more_body", False)
        data = self._rewriter.feed(message.get("body", b""), last=last)
        if self._is_stream():
            if data or last:
                await self._send({"type": "http.response.body", "body": data, "more_body": not last})
            return
        self._whole += data
        if last:
            kept = [(key, value) for key, value in self._start["headers"] if key.lower() != b"content-length"]
            length = (b"content-length", str(len(self._whole)).encode())
            await self._send(dict(self._start) | {"headers": [*kept, length]})
            await self._send({"type": "http.response.body", "body": self._whole})

    def _is_stream(self) -> bool:
        headers = dict(self._start["headers"])
        return bool(headers.get(b"content-type", b"").startswith(b"text/event-stream"))


async def _read_all(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "invalid_request_error", "the client went away")
        body += bytes(message.get("body", b""))
        if len(body) > _LARGEST_BODY:
            raise RequestError(413, "invalid_request_error", f"the body is larger than {_LARGEST_BODY} bytes")
        if not message.get("more_body", False):
            return body


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
