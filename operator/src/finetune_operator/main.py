"""Puts the operator together and runs it until it is told to stop."""

import asyncio
import logging

import aiohttp

from finetune_operator.audit import Audit
from finetune_operator.cluster import connect
from finetune_operator.feeds import Feeds
from finetune_operator.health import serve_health
from finetune_operator.observer import Observer
from finetune_operator.pods import Pods
from finetune_operator.reconcile import Reconciler
from finetune_operator.settings import Settings
from finetune_operator.store import Store
from finetune_operator.workqueue import WorkQueue

_LOG = logging.getLogger(__name__)
_WORKERS = 16


async def run_operator(settings: Settings, instance: str, health_port: int, metrics_port: int) -> bool:
    """Run until SIGTERM or SIGINT; return whether it was told to stop, and not ended by a fault."""
    store, queue = Store(), WorkQueue()
    async with connect() as cluster, aiohttp.ClientSession() as session:
        audit = Audit(cluster, store, queue, settings.audit_seconds)
        reconciler = Reconciler(cluster, store, queue, Observer(store, Pods(session)), settings, instance)
        feeds = Feeds(store, queue)
        feeding = asyncio.create_task(feeds.run(), name="feeds")
        tasks: list[asyncio.Task[None]] = [
            feeding,
            asyncio.create_task(audit.run(feeds.synced), name="audit"),
            *(asyncio.create_task(_work(reconciler, feeds), name=f"worker {n}") for n in range(_WORKERS)),
        ]
        async with serve_health(
            lambda: not any(task.done() for task in tasks), feeds.synced, health_port, metrics_port
        ):
            _LOG.info("started as %s", instance)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # kopf handles the signals; it ends without an error only when it was told to.
        told = feeding.done() and feeding.exception() is None
        for task in tasks:
            if task.done() and task.exception() is not None:
                _LOG.error("%s ended", task.get_name(), exc_info=task.exception())
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return told


async def _work(reconciler: Reconciler, feeds: Feeds) -> None:
    """Work once everything is known: before that every object would look new."""
    await feeds.synced.wait()
    await reconciler.work()
