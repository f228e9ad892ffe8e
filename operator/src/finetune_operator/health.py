"""`/healthz`, `/readyz` and `/metrics` of the operator."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from finetune_operator.metrics import REGISTRY

HEALTH_PORT = 8080
METRICS_PORT = 9090


@asynccontextmanager
async def serve_health(
    is_alive: Callable[[], bool], synced: asyncio.Event, health_port: int, metrics_port: int
) -> AsyncIterator[None]:
    """Serve probes and metrics while the body runs."""

    async def healthz(_: web.Request) -> web.Response:
        alive = is_alive()
        return web.Response(text="ok" if alive else "a task of the operator has ended", status=200 if alive else 503)

    async def readyz(_: web.Request) -> web.Response:
        ready = synced.is_set()
        return web.Response(text="ok" if ready else "the watches have not synced yet", status=200 if ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    health = web.Application()
    health.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    scrapes = web.Application()
    scrapes.add_routes([web.get("/metrics", metrics)])
    runners = [web.AppRunner(app, access_log=None) for app in (health, scrapes)]
    try:
        for runner, port in zip(runners, (health_port, metrics_port), strict=True):
            await runner.setup()
            await web.TCPSite(runner, port=port).start()
        yield
    finally:
        for runner in runners:
            await runner.cleanup()
