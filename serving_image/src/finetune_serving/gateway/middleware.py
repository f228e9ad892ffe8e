"""The ASGI middleware in front of vLLM's routes: allows listed paths only, checks API keys, maps public model names."""

import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from finetune_api.access import RequestLimits
from finetune_api.contract.routes import LOADED_PATH
from finetune_api.references import BASE_NAME

from finetune_serving.gateway.access import Access
from finetune_serving.gateway.errors import RequestError, build_error, read_vllm_error
from finetune_serving.gateway.hosting import Hosting, Version, compute_percentile
from finetune_serving.gateway.metrics import (
    FIRST_BYTE_SECONDS,
    GENERATED_TOKENS,
    IN_FLIGHT,
    PROMPT_TOKENS,
    REQUEST_SECONDS,
    REQUESTS,
)
from finetune_serving.gateway.request_bodies import (
    NOT_STORED,
    RESPONSES_PATH,
    TOKEN_FIELDS,
    has_include_usage,
    include_usage,
    prepare_request,
    switch_thinking_off,
)
from finetune_serving.gateway.response_bodies import (
    EventStream,
    Usage,
    build_model,
    build_model_list,
    read_usage,
    replace_model_name,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_LOG = logging.getLogger("vllm.finetune")
VERSION_HEADER = b"x-finetune-version"
"""Response header with the FineTuneJob that trained the version."""
_MODELS_PATH = "/v1/models"
_MODEL_PREFIX = f"{_MODELS_PATH}/"
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
        elif path in TOKEN_FIELDS and method == "POST":
            await self._run_inference(scope, receive, send, self._identify(scope))
        elif path == _MODELS_PATH and method == "GET":
            names = self._list_names(self._identify(scope))
            await _send_json(send, build_model_list(names, self._created, self._hosting.max_model_len))
        elif path.startswith(_MODEL_PREFIX) and path != _MODEL_PREFIX and method == "GET":
            name = path.removeprefix(_MODEL_PREFIX)
            self._find_version(self._identify(scope), name, "")
            await _send_json(send, build_model(name, self._created, self._hosting.max_model_len))
        else:
            advice = f": {NOT_STORED}" if path.startswith(f"{RESPONSES_PATH}/") else " on this server"
            raise RequestError(404, f"{method} {path[:200]} does not exist{advice}")

    def _identify(self, scope: Message) -> str:
        return self._access.identify(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"))

    async def _run_inference(self, scope: Message, receive: Receive, send: Send, key_name: str) -> None:
        """Answer one inference request, and record its metrics by model and version."""
        started, model, version, status = time.monotonic(), "unknown", None, 0
        response: _Response | None = None
        try:
            path = scope["path"]
            request = prepare_request(path, await _read_body(receive, self._hosting.limits), self._hosting)
            public = str(request["model"])
            name = public.partition("@")[0]
            self._access.admit(key_name, name, started)
            client = request.get("safety_identifier") or request.get("user") or key_name
            version = self._find_version(key_name, public, str(client))
            model = name
            if version:
                version.in_flight += 1
                if version.route.thinking_off:
                    request = switch_thinking_off(path, request)
            response = _Response(send, version, public, keep_usage=has_include_usage(path, request))
            request = include_usage(path, request) | {"model": response.served_name}
            with IN_FLIGHT.track_inprogress():
                status = await self._forward(scope, request, receive, response)
        except RequestError as error:
            status = error.status
            raise
        finally:
            _record_request(model, version, status, started, response)

    def _list_names(self, key_name: str) -> list[str]:
        """Return the public names of the loaded models that a key may request."""
        return self._access.filter_models(key_name, [BASE_NAME, *self._hosting.names])

    def _find_version(self, key_name: str, model: str, client: str) -> Version | None:
        """Return the version that answers a client's requests for a model; None means the base model.

        Raises:
            RequestError: the model does not exist for the key, or is not loaded yet.
        """
        is_visible = bool(self._access.filter_models(key_name, [model.partition("@")[0]]))
        if model == BASE_NAME and is_visible:
            return None
        percentile = compute_percentile(model, client) if client else 100 * random.random()  # noqa: S311 - no secret
        version = self._hosting.find_version(model, percentile)
        if version is not None and is_visible:
            return version
        if self._hosting.has_name(model) and is_visible:
            message = f"the model {model} is not loaded yet: try again in {_RETRY_SECONDS} s"
            raise RequestError(503, message, retry_after=_RETRY_SECONDS)
        names = ", ".join(self._list_names(key_name))
        message = f"the model {model[:100]!r} does not exist on this server; available models: {names}"
        raise RequestError(404, message, param="model", code="model_not_found")

    async def _forward(self, scope: Message, request: Message, receive: Receive, response: "_Response") -> int:
        """Send the request to vLLM, and return the HTTP status of its response.

        Raises:
            RequestError: vLLM failed before its response began.
        """
        body = json.dumps(request).encode()
        headers = [(key, value) for key, value in scope["headers"] if key not in (b"content-length", b"authorization")]
        headers.append((b"content-length", str(len(body)).encode()))
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        try:
            await self._app(dict(scope) | {"headers": headers}, replay, response.send)
        except Exception:
            if response.status:
                raise
            _LOG.exception("vLLM failed to answer a request for %s", response.served_name)
            raise RequestError(500, "the server failed to answer: its log says why") from None
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
        if self.status >= 400:
            error = read_vllm_error(self.status, body, self._public)
            self.status, body = error.status, build_error(error)
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
            raise RequestError(400, "the client disconnected")
        body += bytes(message.get("body", b""))
        if len(body) > limits.max_body_bytes:
            raise RequestError(413, f"the body must have at most {limits.max_body_bytes} bytes on this server")
        if not message.get("more_body", False):
            return body


async def _send_json(send: Send, content: dict[str, Any]) -> None:
    await _send_response(send, 200, json.dumps(content).encode())


async def _send_response(send: Send, status: int, body: bytes, retry_after: int | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
