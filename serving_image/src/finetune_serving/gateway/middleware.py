"""The ASGI middleware in front of vLLM's routes: allows listed paths only, checks API keys, maps public model names."""

import json
import random
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from finetune_api.access import RequestLimits
from finetune_api.contract.routes import LOADED_PATH
from finetune_api.references import BASE_NAME

from finetune_serving.gateway.access import Access
from finetune_serving.gateway.hosting import Hosting, Version, compute_percentile
from finetune_serving.gateway.metrics import (
    FIRST_BYTE_SECONDS,
    GENERATED_TOKENS,
    IN_FLIGHT,
    PROMPT_TOKENS,
    REQUEST_SECONDS,
    REQUESTS,
)
from finetune_serving.gateway.openai_messages import (
    EventStream,
    RequestError,
    Usage,
    build_error,
    build_model_list,
    has_include_usage,
    include_usage,
    is_non_finite_error,
    limit_tokens,
    read_request,
    read_usage,
    replace_model_name,
    switch_thinking_off,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

VERSION_HEADER = b"x-finetune-version"
"""Response header with the FineTuneJob that trained the version."""
_CHAT_PATH = "/v1/chat/completions"
_INFERENCE_PATHS = {_CHAT_PATH, "/v1/completions", "/v1/embeddings"}
_OPEN_PATHS = {"/metrics", "/health", "/readyz", LOADED_PATH}
"""Paths that need no API key."""
_RETRY_SECONDS = 2


class Gateway:
    """The middleware. Unlisted paths return 404."""

    def __init__(self, app: App, hosting: Hosting, access: Access, is_draining: Callable[[], bool]) -> None:
        """Wrap `app`. While `is_draining()` is true each connection is closed after its response."""
        self._app, self._hosting, self._access, self._is_draining = app, hosting, access, is_draining
        self._created = int(time.time())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request. Only HTTP is handled: a WebSocket gets no response."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            send = self._close_if_draining(send)
            try:
                await self._handle(scope, receive, send)
            except RequestError as error:
                await _send_response(send, error.status, build_error(error), error.retry_after)

    def _close_if_draining(self, send: Send) -> Send:
        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_draining():
                message = dict(message) | {"headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        return send_and_close

    async def _handle(self, scope: Message, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in _OPEN_PATHS and method == "GET":
            await self._app(scope, receive, send)
        elif path in _INFERENCE_PATHS and method == "POST":
            await self._run_inference(scope, receive, send, self._identify(scope))
        elif path == "/v1/models" and method == "GET":
            names = self._access.filter_models(self._identify(scope), [BASE_NAME, *self._hosting.names])
            await _send_response(send, 200, build_model_list(names, self._created, self._hosting.max_model_len))
        else:
            raise RequestError(404, "invalid_request_error", f"{method} {path[:200]} does not exist")

    def _identify(self, scope: Message) -> str:
        return self._access.identify(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"))

    async def _run_inference(self, scope: Message, receive: Receive, send: Send, key_name: str) -> None:
        """Answer one inference request, and record its metrics by model and version."""
        started, model, version, status = time.monotonic(), "unknown", None, 0
        response: _Response | None = None
        try:
            limits = self._hosting.limits
            request = limit_tokens(read_request(await _read_body(receive, limits)), limits)
            public = str(request["model"])
            name = public.partition("@")[0]
            self._access.admit(key_name, name, started)
            version = self._acquire_version(public, str(request.get("user") or key_name))
            model = name
            if version and version.route.thinking_off and scope["path"] == _CHAT_PATH:
                request = switch_thinking_off(request)
            response = _Response(send, version, public, keep_usage=has_include_usage(request))
            with IN_FLIGHT.track_inprogress():
                status = await self._forward(
                    scope, include_usage(request) | {"model": response.served_name}, receive, response
                )
        except RequestError as error:
            status = error.status
            raise
        finally:
            _record_request(model, version, status, started, response)

    def _acquire_version(self, name: str, client: str) -> Version | None:
        """Return the version that answers, and count the request in flight on it; None means the base model.

        Raises:
            RequestError: the model does not exist, or is not loaded yet.
        """
        if name == BASE_NAME:
            return None
        percentile = compute_percentile(name, client) if client else 100 * random.random()  # noqa: S311 - no secret
        version = self._hosting.find_version(name, percentile)
        if version is not None:
            version.in_flight += 1
            return version
        if self._hosting.has_name(name):
            message = f"the model {name} is not loaded yet: try again in {_RETRY_SECONDS} s"
            raise RequestError(503, "server_error", message, retry_after=_RETRY_SECONDS)
        names = ", ".join([BASE_NAME, *self._hosting.names])
        message = f"the model {name[:100]!r} does not exist on this server; available models: {names}"
        raise RequestError(404, "invalid_request_error", message)

    async def _forward(self, scope: Message, request: Message, receive: Receive, response: "_Response") -> int:
        """Send the request to vLLM, and return the HTTP status of its response."""
        body = json.dumps(request).encode()
        headers = [(key, value) for key, value in scope["headers"] if key not in (b"content-length", b"authorization")]
        headers.append((b"content-length", str(len(body)).encode()))
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(dict(scope) | {"headers": headers}, replay, response.send)
        return response.status


class _Response:
    """Relays vLLM's response to the client under the public model name. Streams are relayed event by event."""

    def __init__(self, send: Send, version: Version | None, public: str, *, keep_usage: bool) -> None:
        self._send, self._version, self._public = send, version, public
        self.served_name = version.route.served_name if version else BASE_NAME
        """The name of the model in vLLM."""
        self._events = EventStream(self.served_name, public, keep_usage=keep_usage)
        self._start: Message = {}
        self._body = b""
        self.status = 0
        self.first_byte: float | None = None
        """Time of the first byte of the body, by the monotonic clock."""
        self.usage: Usage | None = None

    async def send(self, message: Message) -> None:
        """Relay an ASGI message of vLLM."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            version_header = [(VERSION_HEADER, self._version.route.job.encode())] if self._version else []
            self._start = dict(message) | {"headers": [*message["headers"], *version_header]}
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
        self._body += message.get("body", b"")
        if last:
            await self._send_complete()

    async def _send_complete(self) -> None:
        """Send the collected response, which is not a stream."""
        self.usage = read_usage(self._body)
        body = replace_model_name(self._body, self.served_name, self._public)
        if is_non_finite_error(self.status, body):
            self.status = 500
            message = f"the model {self._public} returned logprobs that are not finite numbers"
            body = build_error(RequestError(500, "server_error", message))
        headers = [(key, value) for key, value in self._start["headers"] if key.lower() != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await self._send(dict(self._start) | {"status": self.status, "headers": [*headers, length]})
        await self._send({"type": "http.response.body", "body": body})

    def _is_stream(self) -> bool:
        headers = dict(self._start["headers"])
        return bool(headers.get(b"content-type", b"").startswith(b"text/event-stream"))


def _record_request(
    model: str, version: Version | None, status: int, started: float, response: _Response | None
) -> None:
    """Record the metrics of a finished request. A status of 0 means that it was aborted."""
    seconds = time.monotonic() - started
    job = version.route.job if version else ""
    REQUESTS.labels(model, job, str(status or "aborted")).inc()
    REQUEST_SECONDS.labels(model, job).observe(seconds)
    if version is not None:
        version.in_flight -= 1
        if status:
            version.count_request(status, seconds)
    if response and response.first_byte is not None:
        FIRST_BYTE_SECONDS.labels(model, job).observe(response.first_byte - started)
    if response and response.usage:
        PROMPT_TOKENS.labels(model, job).inc(response.usage.prompt)
        GENERATED_TOKENS.labels(model, job).inc(response.usage.generated)


async def _read_body(receive: Receive, limits: RequestLimits) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "invalid_request_error", "the client disconnected")
        body += bytes(message.get("body", b""))
        if len(body) > limits.max_body_bytes:
            text = f"the body must have at most {limits.max_body_bytes} bytes on this server"
            raise RequestError(413, "invalid_request_error", text)
        if not message.get("more_body", False):
            return body


async def _send_response(send: Send, status: int, body: bytes, retry_after: int | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
