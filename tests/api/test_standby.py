"""A standby takes over only from a holder that stopped renewing the Lease, whatever happens to its watch."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from cluster.client import Client, connect
from cluster.control_plane import Cluster
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.leader import LeaderCandidate, LeaderElector
from finetune_operator.kube.lease import LeaseTiming
from kubernetes.aio import client

SHORT = 5
"""Seconds of a Lease that a busy machine can renew in time."""
_LONG = 300
"""Seconds of a Lease that does not expire during these tests."""
_GONE = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Proxy:
    """Forwards the requests of one operator to the API server; a test may replace the answers to watches."""

    def __init__(self, api: Client, answer: Answer | None = None) -> None:
        self._api, self._answer = api, answer or self._forward
        self.reads = 0
        self._watches = asyncio.Semaphore(0)
        self.last_write = 0.0
        """Monotonic time of the last forwarded write."""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[KubeClient]:
        """Listen while the body runs; return a client of the proxy."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
            async with client.ApiClient(configuration) as connection:
                yield KubeClient(connection)
        finally:
            await runner.cleanup()

    async def wait_for_watch(self) -> None:
        """Wait for the next watch request."""
        await asyncio.wait_for(self._watches.acquire(), 60)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            self._watches.release()
            return await self._answer(request)
        if request.method == "GET":
            self.reads += 1
        else:
            self.last_write = time.monotonic()
        return await self._forward(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        url, headers = self._api.server + request.path_qs, self._api.headers | {"Content-Type": "application/json"}
        response = web.StreamResponse()
        async with self._api.session.request(
            request.method, url, data=await request.read(), headers=headers, timeout=aiohttp.ClientTimeout(total=None)
        ) as answer:
            response.set_status(answer.status)
            await response.prepare(request)
            async for line in answer.content:
                await response.write(line)
        return response


async def answer_watch(request: web.Request, body: bytes = b"") -> web.StreamResponse:
    """Answer a watch with a body; return the open response."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(body)
    return response


async def sends_nothing(request: web.Request) -> web.StreamResponse:
    await answer_watch(request)
    return await never_answers(request)


async def never_answers(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def ends_at_once(request: web.Request) -> web.StreamResponse:
    return await answer_watch(request)


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = await answer_watch(request, b'{"type":"MODI')
    assert request.transport is not None
    request.transport.abort()
    return response


async def sends_invalid_json(request: web.Request) -> web.StreamResponse:
    return await answer_watch(request, b"<html>\n")


async def sends_incomplete_lease(request: web.Request) -> web.StreamResponse:
    return await answer_watch(request, b'{"type":"MODIFIED","object":{"metadata":{}}}\n')


async def sends_gone_event(request: web.Request) -> web.StreamResponse:
    return await answer_watch(request, json.dumps({"type": "ERROR", "object": _GONE}).encode() + b"\n")


async def answers_gone(_: web.Request) -> web.StreamResponse:
    return web.json_response(_GONE, status=410)


async def answers_forbidden(_: web.Request) -> web.StreamResponse:
    return web.json_response(_GONE | {"code": 403, "reason": "Forbidden", "message": "not yours"}, status=403)


WATCH_FAULTS = (
    sends_nothing,
    never_answers,
    ends_at_once,
    breaks_off,
    sends_invalid_json,
    sends_incomplete_lease,
    sends_gone_event,
    answers_gone,
    answers_forbidden,
)


def build_elector(connection: KubeClient, namespace: str, lease: str, identity: str, seconds: int) -> LeaderElector:
    """Return an elector for a Lease."""
    return LeaderElector(connection, LeaderCandidate(namespace, lease, identity, LeaseTiming(seconds)))


async def test_a_standby_replaces_only_a_silent_holder_whatever_its_watch_does(
    cluster: Cluster, namespace: str
) -> None:
    async with connect(cluster) as api:
        await asyncio.gather(*(take_over_from_silent(api, namespace, answer) for answer in WATCH_FAULTS))


async def take_over_from_silent(api: Client, namespace: str, answer: Answer) -> None:
    """Let a holder renew a Lease while a standby tries to acquire it twice; then stop the holder."""
    fault = getattr(answer, "__name__", "")
    lease, holder_proxy, standby_proxy = fault.replace("_", "-"), Proxy(api), Proxy(api, answer)
    async with holder_proxy.serve() as first, standby_proxy.serve() as second:
        holder = build_elector(first, namespace, lease, "holder", SHORT)
        await holder.acquire()
        started, standby = time.monotonic(), build_elector(second, namespace, lease, "standby", SHORT)
        async with asyncio.TaskGroup() as tasks:
            renewal, acquisition = tasks.create_task(holder.renew()), tasks.create_task(standby.acquire())
            for _ in range(2):
                await standby_proxy.wait_for_watch()
            assert not acquisition.done(), f"{fault}: the standby took a Lease that was renewed"
            renewal.cancel()
            await asyncio.wait_for(acquisition, 3 * SHORT)
        silence = time.monotonic() - holder_proxy.last_write
        assert silence >= SHORT, f"{fault}: the standby took the Lease after {silence:.2f} s"
        pauses = (time.monotonic() - started) / LeaseTiming(SHORT).conflict_delay
        assert standby_proxy.reads <= pauses + 2, f"{fault}: the standby read the Lease without a pause"


@pytest.mark.parametrize("how", ["released", "deleted"])
async def test_a_lease_that_becomes_free_is_taken_at_once(cluster: Cluster, namespace: str, how: str) -> None:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(connect(cluster))
        proxy = Proxy(api)
        connection = await stack.enter_async_context(proxy.serve())
        holder = build_elector(connection, namespace, "lease", "holder", _LONG)
        await holder.acquire()
        acquisition = asyncio.create_task(build_elector(connection, namespace, "lease", "standby", _LONG).acquire())
        await proxy.wait_for_watch()
        if how == "released":
            await holder.release()
        else:
            await api.request("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/lease")
        started = time.monotonic()
        await asyncio.wait_for(acquisition, 5)
        print(f"\n{how}: taken after {time.monotonic() - started:.3f} s")
