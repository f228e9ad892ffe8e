"""Puts the operator together and runs it until it is told to stop, or leads no more."""

import asyncio
import logging
import os
from typing import Any

from finetune_operator.controller.apply import Maker
from finetune_operator.controller.cache import Store
from finetune_operator.controller.pod_client import Pods, open_session
from finetune_operator.controller.reconcile import Reconciler
from finetune_operator.controller.resync import Audit, count_jobs
from finetune_operator.controller.snapshot import Observer
from finetune_operator.controller.watches import Feeds
from finetune_operator.health import serve_health
from finetune_operator.kube.client import connect
from finetune_operator.kube.kinds import OWNERS
from finetune_operator.kube.leader import Candidate, Elector, LeadershipLostError
from finetune_operator.kube.workqueue import WorkQueue
from finetune_operator.settings import Settings

_LOG = logging.getLogger(__name__)
_WORKERS = 16
LOST = os.EX_TEMPFAIL
"""Exit status of a leader that lost the Lease: start me again, as a standby."""


async def run_operator(settings: Settings, candidate: Candidate, health_port: int, metrics_port: int) -> int:
    """Run until SIGTERM or SIGINT; return 0 then, `LOST` when the leadership was lost, 1 on a fault."""
    store, stop = Store(), asyncio.Event()
    queue = WorkQueue(store.is_new)
    async with connect() as cluster, open_session() as session:
        audit = Audit(cluster, store, queue, settings.audit_seconds)
        elector = Elector(cluster, candidate)
        observer = Observer(store, Pods(session), settings)
        fenced = cluster.fenced(elector.check)
        maker = Maker(fenced, store, queue)
        reconciler = Reconciler(fenced, maker, store, queue, observer, settings, candidate.identity)
        feeds = Feeds(store, queue)
        feeding = asyncio.create_task(feeds.run(stop), name="feeds")
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(audit.run(feeds.synced), name="audit"),
            asyncio.create_task(audit.count(), name="count"),
            asyncio.create_task(_lead(elector, feeds, store, queue), name="leadership"),
            *(asyncio.create_task(reconciler.work(), name=f"worker {n}") for n in range(_WORKERS)),
        ]
        told = asyncio.create_task(stop.wait(), name="stop")
        async with serve_health(
            lambda: not any(task.done() for task in (feeding, *tasks)), feeds.synced, health_port, metrics_port
        ):
            _LOG.info("started as %s", candidate.identity)
            await asyncio.wait([told, feeding, *tasks], return_when=asyncio.FIRST_COMPLETED)
            status = _explain_end(feeding, *tasks)
            await _cancel(*tasks)
            if status != LOST:
                await elector.release()
            await _cancel(feeding, told)
    return status


async def _lead(elector: Elector, feeds: Feeds, store: Store, queue: WorkQueue) -> None:
    """Look at everything once this operator leads, and knows everything: before that every object would look new."""
    await feeds.synced.wait()
    await elector.win()
    count_jobs(store)
    queue.open(key for owner in OWNERS for key in store.keys(owner))
    await elector.keep()


def _explain_end(*tasks: asyncio.Task[None]) -> int:
    """Return the exit status, and tell which task ended; none does when the operator was told to stop."""
    ended = [task for task in tasks if task.done()]
    for task in ended:
        error = task.exception()
        if isinstance(error, LeadershipLostError):
            _LOG.warning("ends, to begin again as a standby: %s", error)
            return LOST
        _LOG.error("%s ended", task.get_name(), exc_info=error)
    return 1 if ended else 0


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
