"""Assembles the operator and runs it until it is stopped or loses the leadership."""

import asyncio
import logging
import os
from functools import partial
from typing import Any

from finetune_operator.controller.apply import Applier
from finetune_operator.controller.cache import Cache
from finetune_operator.controller.indexes import INDEXERS
from finetune_operator.controller.pod_client import PodClient, open_session
from finetune_operator.controller.reconcile import Reconciler
from finetune_operator.controller.resync import Resync, count_jobs
from finetune_operator.controller.snapshot import SnapshotReader
from finetune_operator.controller.triggers import is_new
from finetune_operator.controller.watches import Watches
from finetune_operator.health import serve_health
from finetune_operator.kube.client import connect
from finetune_operator.kube.kinds import OWNERS
from finetune_operator.kube.leader import LeaderCandidate, LeaderElector, LeadershipLostError
from finetune_operator.kube.workqueue import WorkQueue
from finetune_operator.settings import Settings

_LOG = logging.getLogger(__name__)
_WORKERS = 16
LEADERSHIP_LOST = os.EX_TEMPFAIL
"""Exit status of a leader that lost the Lease: the kubelet restarts it as a standby."""


async def run_operator(settings: Settings, candidate: LeaderCandidate, health_port: int, metrics_port: int) -> int:
    """Run until SIGTERM or SIGINT; return 0 then, `LEADERSHIP_LOST` after losing the leadership, 1 after a fault."""
    cache, stop_event = Cache(INDEXERS), asyncio.Event()
    queue = WorkQueue(partial(is_new, cache))
    async with connect() as client, open_session() as session:
        resync = Resync(client, cache, queue, settings.resync_seconds)
        elector = LeaderElector(client, candidate)
        reader = SnapshotReader(cache, PodClient(session), settings, client)
        fenced = client.fenced(elector.check)
        applier = Applier(fenced, cache, queue)
        reconciler = Reconciler(fenced, applier, cache, queue, reader, settings, candidate.identity)
        watches = Watches(cache, queue)
        watching = asyncio.create_task(watches.run(stop_event), name="watches")
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(resync.run(watches.synced), name="resync"),
            asyncio.create_task(resync.run_job_count(), name="job count"),
            asyncio.create_task(_lead(elector, watches, cache, queue), name="leader election"),
            *(asyncio.create_task(reconciler.work(), name=f"worker {n}") for n in range(_WORKERS)),
        ]
        stopping = asyncio.create_task(stop_event.wait(), name="stop")
        async with serve_health(
            lambda: not any(task.done() for task in (watching, *tasks)), watches.synced, health_port, metrics_port
        ):
            _LOG.info("started as %s", candidate.identity)
            await asyncio.wait([stopping, watching, *tasks], return_when=asyncio.FIRST_COMPLETED)
            status = _exit_status(watching, *tasks)
            await _cancel(*tasks)
            if status != LEADERSHIP_LOST:
                await elector.release()
            await _cancel(watching, stopping)
    return status


async def _lead(elector: LeaderElector, watches: Watches, cache: Cache, queue: WorkQueue) -> None:
    """Acquire the leadership, reconcile all objects, and keep renewing the Lease.

    This waits for the watches to sync first: before that every object looks new.
    """
    await watches.synced.wait()
    await elector.acquire()
    count_jobs(cache)
    queue.open(key for owner in OWNERS for key in cache.keys(owner))
    await elector.renew()


def _exit_status(*tasks: asyncio.Task[None]) -> int:
    """Return the exit status, and log the task that ended; none has ended after a stop signal."""
    ended = [task for task in tasks if task.done()]
    for task in ended:
        error = task.exception()
        if isinstance(error, LeadershipLostError):
            _LOG.warning("lost leadership, restarting as a standby: %s", error)
            return LEADERSHIP_LOST
        _LOG.error("task ended unexpectedly: %s", task.get_name(), exc_info=error)
    return 1 if ended else 0


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
