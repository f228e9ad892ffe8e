"""Stands between operators and the API server: shows each only its own namespace, and lets faults befall it.

An operator's process is known by its token. What still comes from one that is dead goes nowhere.
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
"""Longer than the operator waits."""
_FOR_EVER = 3600.0
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
    """One process of an operator."""

    kill: Callable[[], None]
    is_dead: bool = False
    handlers: set[asyncio.Task[Any] | None] = field(default_factory=set)

    def die(self) -> None:
        """Be gone, as far as the API server can see."""
        self.is_dead = True
        self.hang_up()

    def hang_up(self) -> None:
        """End all its connections but the one that is answered just now."""
        for task in self.handlers - {asyncio.current_task()}:
            if task is not None:
                task.cancel()


@dataclass
class Traffic:
    """Everything that the operators of one run ask, and what befalls them."""

    namespace: str
    fault: Fault | None
    seed: int
    points: list[Point] = field(default_factory=list)
    """Every request and every event, in their order."""
    writes: list[Write] = field(default_factory=list)
    struck: list[Point] = field(default_factory=list)
    """Where the fault happened."""
    expiring: bool = False
    """Whether the next token to continue a list has expired."""
    _away_until: float = 0.0
    _numbers: Counter[tuple[str, str]] = field(default_factory=Counter)
    _met: set[str] = field(default_factory=set)
    """What was met and was not tried again since."""

    def meet(self, verb: str, resource: str, asked: str) -> tuple[Point, Kind | None]:
        """Count a request or an event; return it and what befalls it. `asked` is the same when it is tried again."""
        self._numbers[verb, resource] += 1
        point = Point(verb, resource, self._numbers[verb, resource])
        self.points.append(point)
        if self.fault is None or not self.fault.strikes(point, is_again=asked in self._met, seed=self.seed):
            self._met.discard(asked)
            return point, None
        self._met.add(asked)
        self.struck.append(point)
        return point, self.fault.kind

    @property
    def pages(self) -> bool:
        """Whether lists come in pages of one object."""
        return self.fault is not None and self.fault.kind is Kind.EXPIRED

    @property
    def is_away(self) -> bool:
        """Whether there is no API server just now."""
        return asyncio.get_running_loop().time() < self._away_until

    def go_away(self, kind: Kind) -> None:
        """Be no API server for a while."""
        self._away_until = asyncio.get_running_loop().time() + _AWAY_SECONDS[kind]


class Proxy:
    """The server that operators take for the API server."""

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
        """Let a process ask."""
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
            return _turn_away(request, traffic)
        if resource == _LEASES:
            # They come by the clock: what befalls them is that the API server is away.
            if verb == "WATCH":
                return await self._watch(request, traffic, lambda _: None)
            return await self._pass_on(request, body, Point(verb, resource, 0), traffic)
        point, kind = traffic.meet(verb, resource, f"{verb} {request.path}")
        if kind in STATUSES:
            return _refuse(*STATUSES[kind])
        if verb == "LIST" and traffic.expiring and "continue" in request.query:
            traffic.expiring = False
            return _refuse(*STATUSES[Kind.GONE_HTTP])
        if kind in _AWAY_SECONDS:
            traffic.go_away(kind)
            caller.hang_up()
            return _turn_away(request, traffic)
        if kind in (Kind.RESET, Kind.TIMEOUT, Kind.CRASH_BEFORE, Kind.CRASH_LATE):
            await self._keep_away(kind, request, body, point, caller, traffic)
            return _reset(request)
        if verb == "WATCH":
            return await self._watch(request, traffic, lambda event: traffic.meet(event, resource, event)[1])
        # What is under way when its sender dies arrives all the same.
        response = await asyncio.shield(self._pass_on(request, body, point, traffic))
        if kind is Kind.CRASH_AFTER:
            caller.kill()
            caller.die()
        return response if kind not in (Kind.CRASH_AFTER, Kind.LOST) else _reset(request)

    async def _keep_away(
        self, kind: Kind, request: web.Request, body: bytes, point: Point, caller: Caller, traffic: Traffic
    ) -> None:
        """Let a request not reach the API server, or only when nobody waits for it any more."""
        match kind:
            case Kind.TIMEOUT:
                await asyncio.sleep(_TIMEOUT_SECONDS if point.verb != "WATCH" else _FOR_EVER)
            case Kind.CRASH_BEFORE | Kind.CRASH_LATE:
                caller.kill()
                caller.die()
                if kind is Kind.CRASH_LATE:
                    await asyncio.sleep(_LATE_SECONDS)
                    await self._pass_on(request, body, point, traffic)

    async def _pass_on(self, request: web.Request, body: bytes, point: Point, traffic: Traffic) -> web.Response:
        url, headers = self._target(request, traffic)
        async with self._client.session.request(request.method, url, data=body or None, headers=headers) as response:
            answer = await response.read()
            if point.is_write and point.resource != _LEASES:
                sent, answered = json.loads(body or b"{}"), json.loads(answer)
                traffic.writes.append(Write(point, request.path, sent, response.status, answered))
            return web.Response(status=response.status, body=answer, content_type=response.content_type)

    async def _watch(
        self, request: web.Request, traffic: Traffic, befall: Callable[[str], Kind | None]
    ) -> web.StreamResponse:
        url, headers = self._target(request, traffic)
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._client.session.get(url, headers=headers, timeout=timeout) as upstream:
            if upstream.status != 200:
                return web.Response(status=upstream.status, body=await upstream.read())
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            stream = Stream(response, befall)
            async with contextlib.aclosing(stream):
                async for line in upstream.content:
                    if await stream.tell(line):
                        break
            if stream.has_gap:
                traffic.expiring = traffic.pages
        if stream.is_torn:
            _reset(request)
        return response

    def _target(self, request: web.Request, traffic: Traffic) -> tuple[URL, dict[str, str]]:
        """Return the URL that stands for what was asked in the run's own world."""
        query = dict(request.query)
        if traffic.pages and "limit" in query:
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
    resource, is_one = "/".join([rest[0], *rest[2:]]), len(rest) > 1
    if method != "GET":
        return "WRITE", resource
    if is_one:
        return "GET", resource
    return "WATCH" if query.get("watch") == "true" else "LIST", resource


def into_namespace(path: str, namespace: str) -> str:
    """Return the path of a namespace's objects for that of all; other paths as they are."""
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
        "message": f"{reason}, says the proxy",
    }
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(status, status=code, headers=headers)


def _turn_away(request: web.Request, traffic: Traffic) -> web.Response:
    """Be no API server, or one that cannot do anything."""
    is_down = traffic.fault is not None and traffic.fault.kind is Kind.DOWN
    return _refuse(*STATUSES[Kind.UNAVAILABLE]) if is_down else _reset(request)


def _reset(request: web.Request) -> web.Response:
    """End the connection as if a cable had been pulled."""
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    return web.Response()
