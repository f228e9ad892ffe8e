"""The ASGI middleware in front of every route of vLLM: a list of paths, API keys, public model names."""

import json
import random
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from finetune_api.access import RequestLimits
from finetune_api.contract.routes import LOADED_PATH
from finetune_api.references import BASE_NAME

from finetune_serving.gateway.access import Access
from finetune_serving.gateway.hosting import Hosting, Version, position_of
from finetune_serving.gateway.metrics import FIRST_BYTE_SECONDS, IN_FLIGHT, REQUESTS, SECONDS, TOKENS_IN, TOKENS_OUT
from finetune_serving.gateway.openai_messages import (
    EventStream,
    RequestError,
    Usage,
    error_body,
    is_not_finite,
    limit_tokens,
    model_list,
    read_body,
    read_usage,
    rename,
    wants_usage,
    with_usage,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

VERSION_HEADER = b"x-finetune-version"
"""Header of an answer with the FineTuneJob that trained what answered."""
_ASKED = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}
_PASSED = {"/metrics", "/health", "/readyz", LOADED_PATH}
_RETRY_SECONDS = 2


class Gateway:
    """Everything that is not on the list does not exist."""

    def __init__(self, app: App, hosting: Hosting, access: Access, is_draining: Callable[[], bool]) -> None:
        """Stand in front of `app`; while it is draining each connection ends with its answer."""
        self._app, self._hosting, self._access, self._is_draining = app, hosting, access, is_draining
        self._created = int(time.time())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request; what is not HTTP (a WebSocket) gets no answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            send = self._closing(send)
            try:
                await self._handle(scope, receive, send)
            except RequestError as error:
                await _answer(send, error.status, error_body(error), error.retry_after)

    def _closing(self, send: Send) -> Send:
        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_draining():
                message = dict(message) | {"headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        return send_and_close

    async def _handle(self, scope: Message, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in _PASSED and method == "GET":
            await self._app(scope, receive, send)
        elif path in _ASKED and method == "POST":
            await self._ask(scope, receive, send, self._identify(scope))
        elif path == "/v1/models" and method == "GET":
            names = [BASE_NAME, *self._hosting.names]
            await _answer(
                send,
                200,
                model_list(
                    self._access.allowed(self._identify(scope), names), self._created, self._hosting.max_model_len
                ),
            )
        else:
            raise RequestError(404, "invalid_request_error", f"there is no {method} {path[:200]}")

    def _identify(self, scope: Message) -> str:
        return self._access.identify(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"))

    async def _ask(self, scope: Message, receive: Receive, send: Send, key: str) -> None:
        """Answer one request, and count it for the model and the version that it asked for."""
        began, model, version, status = time.monotonic(), "unknown", None, 0
        answer: _Answer | None = None
        try:
            limits = self._hosting.limits
            request = limit_tokens(read_body(await _read_all(receive, limits)), limits)
            public = str(request["model"])
            name = public.partition("@")[0]
            self._access.admit(key, name, began)
            version = self._find(public, str(request.get("user") or key))
            model = name
            answer = _Answer(send, version, public, keep_usage=wants_usage(request))
            served = version.route.served_name if version else BASE_NAME
            with IN_FLIGHT.track_inprogress():
                status = await self._forward(scope, with_usage(request) | {"model": served}, receive, answer)
        except RequestError as error:
            status = error.status
            raise
        finally:
            _count(model, version, status, time.monotonic() - began, answer, began)

    def _find(self, name: str, key: str) -> Version | None:
        """Return the version that answers, with one more request in flight; None stands for the base model.

        Raises:
            RequestError: there is no such model, or it is not loaded yet.
        """
        if name == BASE_NAME:
            return None
        position = position_of(name, key) if key else random.random() * 100  # noqa: S311 - no secret
        version = self._hosting.find(name, position)
        if version is not None:
            version.in_flight += 1
            return version
        if self._hosting.knows(name):
            message = f"{name} is not loaded yet: try again"
            raise RequestError(503, "server_error", message, retry_after=_RETRY_SECONDS)
        names = ", ".join([BASE_NAME, *self._hosting.names])
        raise RequestError(404, "invalid_request_error", f"there is no model {name[:100]!r} here; there are {names}")

    async def _forward(self, scope: Message, request: Message, receive: Receive, answer: "_Answer") -> int:
        """Hand the request to vLLM under its own name for the model; return the HTTP status."""
        body = json.dumps(request).encode()
        headers = [(key, value) for key, value in scope["headers"] if key not in (b"content-length", b"authorization")]
        headers.append((b"content-length", str(len(body)).encode()))
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(dict(scope) | {"headers": headers}, replay, answer.send)
        return answer.status


class _Answer:
    """Sends vLLM's answer on under the public name; streams go on piece by piece."""

    def __init__(self, send: Send, version: Version | None, public: str, *, keep_usage: bool) -> None:
        self._send, self._version, self._public = send, version, public
        self._served = version.route.served_name if version else BASE_NAME
        self._events = EventStream(self._served, public, keep_usage=keep_usage)
        self._start: Message = {}
        self._whole = b""
        self.status = 0
        self.first_byte: float | None = None
        """When the first byte of the body came, by the monotonic clock."""
        self.usage: Usage | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            named = [(VERSION_HEADER, self._version.route.job.encode())] if self._version else []
            self._start = dict(message) | {"headers": [*message["headers"], *named]}
            if self._is_stream():
                await self._send(self._start)
            return
        self.first_byte = self.first_byte or time.monotonic()
        last = not message.get("more_body", False)
        if self._is_stream():
            data = self._events.feed(message.get("body", b""), last=last)
            self.usage = self._events.usage
            if data or last:
                await self._send({"type": "http.response.body", "body": data, "more_body": not last})
            return
        self._whole += message.get("body", b"")
        if last:
            self.usage = read_usage(self._whole)
            body = rename(self._whole, self._served, self._public)
            if is_not_finite(self.status, body):
                self.status = 500
                body = error_body(
                    RequestError(500, "server_error", f"the likelihoods of {self._public} are no numbers")
                )
            kept = [(key, value) for key, value in self._start["headers"] if key.lower() != b"content-length"]
            length = (b"content-length", str(len(body)).encode())
            await self._send(dict(self._start) | {"status": self.status, "headers": [*kept, length]})
            await self._send({"type": "http.response.body", "body": body})

    def _is_stream(self) -> bool:
        headers = dict(self._start["headers"])
        return bool(headers.get(b"content-type", b"").startswith(b"text/event-stream"))


def _count(
    model: str, version: Version | None, status: int, seconds: float, answer: _Answer | None, began: float
) -> None:
    """Count a request that is over, whatever became of it; a status of 0 is one that was aborted."""
    job = version.route.job if version else ""
    REQUESTS.labels(model, job, str(status or "aborted")).inc()
    SECONDS.labels(model, job).observe(seconds)
    if version is not None:
        version.in_flight -= 1
        if status:
            version.answered(status, seconds)
    if answer and answer.first_byte is not None:
        FIRST_BYTE_SECONDS.labels(model, job).observe(answer.first_byte - began)
    if answer and answer.usage:
        TOKENS_IN.labels(model, job).inc(answer.usage.prompt)
        TOKENS_OUT.labels(model, job).inc(answer.usage.generated)


async def _read_all(receive: Receive, limits: RequestLimits) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "invalid_request_error", "the client went away")
        body += bytes(message.get("body", b""))
        if len(body) > limits.max_body_bytes:
            text = f"the body is larger than {limits.max_body_bytes} bytes"
            raise RequestError(413, "invalid_request_error", text)
        if not message.get("more_body", False):
            return body


async def _answer(send: Send, status: int, body: bytes, retry_after: int | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
