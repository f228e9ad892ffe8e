"""A standby is right about the Lease whatever befalls its watch: it replaces whoever is silent, and nobody else."""

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
"""Seconds of a Lease that does not run out here."""
_GONE = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Between:
    """Stands between one operator and the API server, and passes on what it asks; watches may be answered otherwise."""

    def __init__(self, api: Client, answer: Answer | None = None) -> None:
        self._api, self._answer = api, answer or self._pass_on
        self.reads = 0
        self._watches = asyncio.Semaphore(0)
        self.wrote = 0.0
        """When it passed on a write last."""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[KubeClient]:
        """Be there while the body runs."""
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
        """Wait until it is asked for one more watch."""
        await asyncio.wait_for(self._watches.acquire(), 60)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            self._watches.release()
            return await self._answer(request)
        if request.method == "GET":
            self.reads += 1
        else:
            self.wrote = time.monotonic()
        return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
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


async def say(request: web.Request, told: bytes = b"") -> web.StreamResponse:
    """Answer a watch with this."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(told)
    return response


async def is_silent(request: web.Request) -> web.StreamResponse:
    await say(request)
    return await is_not_answered(request)


async def is_not_answered(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def ends_at_once(request: web.Request) -> web.StreamResponse:
    return await say(request)


async def is_torn(request: web.Request) -> web.StreamResponse:
    response = await say(request, b'{"type":"MODI')
    assert request.transport is not None
    request.transport.abort()
    return response


async def tells_nonsense(request: web.Request) -> web.StreamResponse:
    return await say(request, b"<html>\n")


async def tells_of_no_lease(request: web.Request) -> web.StreamResponse:
    return await say(request, b'{"type":"MODIFIED","object":{"metadata":{}}}\n')


async def is_gone(request: web.Request) -> web.StreamResponse:
    return await say(request, json.dumps({"type": "ERROR", "object": _GONE}).encode() + b"\n")


async def is_answered_with_gone(_: web.Request) -> web.StreamResponse:
    return web.json_response(_GONE, status=410)


async def is_forbidden(_: web.Request) -> web.StreamResponse:
    return web.json_response(_GONE | {"code": 403, "reason": "Forbidden", "message": "not yours"}, status=403)


BEFALLS = (
    is_silent,
    is_not_answered,
    ends_at_once,
    is_torn,
    tells_nonsense,
    tells_of_no_lease,
    is_gone,
    is_answered_with_gone,
    is_forbidden,
)


def elect(connection: KubeClient, namespace: str, lease: str, identity: str, seconds: int) -> LeaderElector:
    """Return a part in an election."""
    return LeaderElector(connection, LeaderCandidate(namespace, lease, identity, LeaseTiming(seconds)))


async def test_only_a_silent_holder_is_replaced_whatever_befalls_the_watch(cluster: Cluster, namespace: str) -> None:
    async with connect(cluster) as api:
        await asyncio.gather(*(replace_silent(api, namespace, answer) for answer in BEFALLS))


async def replace_silent(api: Client, namespace: str, answer: Answer) -> None:
    """Let a holder renew a Lease while a standby asks for it again and again, and then be silent."""
    what = getattr(answer, "__name__", "")
    lease, here, there = what.replace("_", "-"), Between(api), Between(api, answer)
    async with here.serve() as first, there.serve() as second:
        holder = elect(first, namespace, lease, "holder", SHORT)
        await holder.acquire()
        began, standby = time.monotonic(), elect(second, namespace, lease, "standby", SHORT)
        async with asyncio.TaskGroup() as tasks:
            keeping, winning = tasks.create_task(holder.renew()), tasks.create_task(standby.acquire())
            for _ in range(2):
                await there.wait_for_watch()
            assert not winning.done(), f"{what}: it took a Lease that was renewed"
            keeping.cancel()
            await asyncio.wait_for(winning, 3 * SHORT)
        silence = time.monotonic() - here.wrote
        assert silence >= SHORT, f"{what}: it took the Lease after {silence:.2f} s"
        pauses = (time.monotonic() - began) / LeaseTiming(SHORT).conflict_delay
        assert there.reads <= pauses + 2, f"{what}: it asked without a pause"


@pytest.mark.parametrize("how", ["released", "deleted"])
async def test_a_lease_that_becomes_free_is_taken_at_once(cluster: Cluster, namespace: str, how: str) -> None:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(connect(cluster))
        between = Between(api)
        connection = await stack.enter_async_context(between.serve())
        holder = elect(connection, namespace, "lease", "holder", _LONG)
        await holder.acquire()
        winning = asyncio.create_task(elect(connection, namespace, "lease", "standby", _LONG).acquire())
        await between.wait_for_watch()
        if how == "released":
            await holder.release()
        else:
            await api.request("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/lease")
        began = time.monotonic()
        await asyncio.wait_for(winning, 5)
        print(f"\n{how}: taken after {time.monotonic() - began:.3f} s")
