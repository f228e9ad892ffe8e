"""The proxy between operators and the API server: limits each operator to its namespace and injects faults.

It knows an operator's process by its token, and drops all requests of a dead process.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from cluster.client import Client
from faults.faults import STATUSES, Fault, Kind, Point
from faults.streams import Stream
from yarl import URL

_TIMEOUT_SECONDS = 10.5
"""Longer than the operator's timeout."""
_HANG_SECONDS = 3600.0
_LEASES = "leases"
_LATE_SECONDS = 1.0
_AWAY_SECONDS = {Kind.AWAY: 5.0, Kind.DOWN: 60.0}
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for a connection that ends with RST."""


@dataclass(frozen=True)
class Write:
    """A write that reached the API server."""

    point: Point
    path: str
    body: dict[str, Any]
    status: int
    answer: dict[str, Any]


@dataclass
class Caller:
    """A process of an operator, as the proxy sees it."""

    kill: Callable[[], None]
    is_dead: bool = False
    handlers: set[asyncio.Task[Any] | None] = field(default_factory=set)

    def die(self) -> None:
        """Mark the process as dead and close its connections."""
        self.is_dead = True
        self.hang_up()

    def hang_up(self) -> None:
        """Close all its connections but the current one."""
        for task in self.handlers - {asyncio.current_task()}:
            if task is not None:
                task.cancel()


@dataclass
class Traffic:
    """All requests and events of the operators of a run, and the faults that strike them."""

    namespace: str
    fault: Fault | None
    seed: int
    points: list[Point] = field(default_factory=list)
    """All requests and events in order."""
    writes: list[Write] = field(default_factory=list)
    struck: list[Point] = field(default_factory=list)
    """The points that the fault struck."""
    expiring: bool = False
    """Whether the next continue token of a list has expired."""
    _away_until: float = 0.0
    _numbers: Counter[tuple[str, str]] = field(default_factory=Counter)
    _awaiting_retry: set[str] = field(default_factory=set)
    """Identities of struck requests that were not retried yet."""

    def register(self, verb: str, resource: str, identity: str) -> tuple[Point, Kind | None]:
        """Count a request or an event; return its point and the fault that strikes it. A retry keeps its `identity`."""
        self._numbers[verb, resource] += 1
        point = Point(verb, resource, self._numbers[verb, resource])
        self.points.append(point)
        if self.fault is None or not self.fault.strikes(
            point, is_retry=identity in self._awaiting_retry, seed=self.seed
        ):
            self._awaiting_retry.discard(identity)
            return point, None
        self._awaiting_retry.add(identity)
        self.struck.append(point)
        return point, self.fault.kind

    @property
    def uses_pages(self) -> bool:
        """Whether lists are split into pages of one object."""
        return self.fault is not None and self.fault.kind is Kind.EXPIRED

    @property
    def is_away(self) -> bool:
        """Whether the API server is unreachable now."""
        return asyncio.get_running_loop().time() < self._away_until

    def go_away(self, kind: Kind) -> None:
        """Make the API server unreachable for a while."""
        self._away_until = asyncio.get_running_loop().time() + _AWAY_SECONDS[kind]


class Proxy:
    """The HTTP server to which the operators connect."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._callers: dict[str, tuple[Caller, Traffic]] = {}
        self.url = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Answer while the body runs."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            await runner.cleanup()

    def admit(self, token: str, caller: Caller, traffic: Traffic) -> None:
        """Accept the requests of a process."""
        self._callers[token] = caller, traffic

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        caller, traffic = self._callers[request.headers["Authorization"].removeprefix("Bearer ")]
        if caller.is_dead:
            return _reset(request)
        task = asyncio.current_task()
        caller.handlers.add(task)
        try:
            return await self._answer(request, caller, traffic)
        except (ConnectionResetError, aiohttp.ClientConnectionError):
            return _reset(request)
        finally:
            caller.handlers.discard(task)

    async def _answer(self, request: web.Request, caller: Caller, traffic: Traffic) -> web.StreamResponse:
        body = await request.read()
        verb, resource = describe(request.method, request.path, request.query)
        if traffic.is_away:
            return _answer_unavailable(request, traffic)
        if resource == _LEASES:
            # Lease requests depend on the clock: only an unreachable API server affects them.
            if verb == "WATCH":
                return await self._watch(request, traffic, lambda _: None)
            return await self._forward(request, body, Point(verb, resource, 0), traffic)
        point, kind = traffic.register(verb, resource, f"{verb} {request.path}")
        if kind in STATUSES:
            return _refuse(*STATUSES[kind])
        if verb == "LIST" and traffic.expiring and "continue" in request.query:
            traffic.expiring = False
            return _refuse(*STATUSES[Kind.GONE_HTTP])
        if kind in _AWAY_SECONDS:
            traffic.go_away(kind)
            caller.hang_up()
            return _answer_unavailable(request, traffic)
        if kind in (Kind.RESET, Kind.TIMEOUT, Kind.CRASH_BEFORE, Kind.CRASH_LATE):
            await self._withhold(kind, request, body, point, caller, traffic)
            return _reset(request)
        if verb == "WATCH":
            return await self._watch(request, traffic, lambda event: traffic.register(event, resource, event)[1])
        # A request in flight arrives even if its sender dies.
        response = await asyncio.shield(self._forward(request, body, point, traffic))
        if kind is Kind.CRASH_AFTER:
            caller.kill()
            caller.die()
        return response if kind not in (Kind.CRASH_AFTER, Kind.LOST) else _reset(request)

    async def _withhold(
        self, kind: Kind, request: web.Request, body: bytes, point: Point, caller: Caller, traffic: Traffic
    ) -> None:
        """Drop a request, or deliver it after its sender is dead."""
        match kind:
            case Kind.TIMEOUT:
                await asyncio.sleep(_TIMEOUT_SECONDS if point.verb != "WATCH" else _HANG_SECONDS)
            case Kind.CRASH_BEFORE | Kind.CRASH_LATE:
                caller.kill()
                caller.die()
                if kind is Kind.CRASH_LATE:
                    await asyncio.sleep(_LATE_SECONDS)
                    await self._forward(request, body, point, traffic)

    async def _forward(self, request: web.Request, body: bytes, point: Point, traffic: Traffic) -> web.Response:
        url, headers = self._target(request, traffic)
        async with self._client.session.request(request.method, url, data=body or None, headers=headers) as response:
            answer = await response.read()
            if point.is_write and point.resource != _LEASES:
                sent, received = json.loads(body or b"{}"), json.loads(answer)
                traffic.writes.append(Write(point, request.path, sent, response.status, received))
            return web.Response(status=response.status, body=answer, content_type=response.content_type)

    async def _watch(
        self, request: web.Request, traffic: Traffic, register: Callable[[str], Kind | None]
    ) -> web.StreamResponse:
        url, headers = self._target(request, traffic)
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._client.session.get(url, headers=headers, timeout=timeout) as upstream:
            if upstream.status != 200:
                return web.Response(status=upstream.status, body=await upstream.read())
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            stream = Stream(response, register)
            async with contextlib.aclosing(stream):
                async for line in upstream.content:
                    if await stream.send(line):
                        break
            if stream.has_gap:
                traffic.expiring = traffic.uses_pages
        if stream.is_torn:
            _reset(request)
        return response

    def _target(self, request: web.Request, traffic: Traffic) -> tuple[URL, dict[str, str]]:
        """Return the URL and headers of a request, limited to the run's namespace."""
        query = dict(request.query)
        if traffic.uses_pages and "limit" in query:
            query["limit"] = "1"
        path = into_namespace(request.path, traffic.namespace)
        headers = dict(self._client.headers)
        for name in ("Content-Type", "Accept"):
            if name in request.headers:
                headers[name] = request.headers[name]
        return URL(self._client.server + path).with_query(query), headers


def describe(method: str, path: str, query: Any) -> tuple[str, str]:
    """Return verb and resource of a request."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    if not rest:
        return method, path.strip("/").replace("/", "+")
    resource, is_single = "/".join([rest[0], *rest[2:]]), len(rest) > 1
    if method != "GET":
        return "WRITE", resource
    if is_single:
        return "GET", resource
    return "WATCH" if query.get("watch") == "true" else "LIST", resource


def into_namespace(path: str, namespace: str) -> str:
    """Return a path of all objects limited to a namespace; other paths unchanged."""
    parts = path.strip("/").split("/")
    length = {"api": 3, "apis": 4}.get(parts[0])
    return path if len(parts) != length else "/" + "/".join([*parts[:-1], "namespaces", namespace, parts[-1]])


def _refuse(code: int, reason: str) -> web.Response:
    status = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": reason,
        "code": code,
        "message": f"{reason} (injected by the proxy)",
    }
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(status, status=code, headers=headers)


def _answer_unavailable(request: web.Request, traffic: Traffic) -> web.Response:
    """Reset the connection, or answer 503 where the API server is down."""
    is_down = traffic.fault is not None and traffic.fault.kind is Kind.DOWN
    return _refuse(*STATUSES[Kind.UNAVAILABLE]) if is_down else _reset(request)


def _reset(request: web.Request) -> web.Response:
    """Reset the connection."""
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    return web.Response()
