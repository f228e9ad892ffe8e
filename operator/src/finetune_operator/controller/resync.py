"""Lists everything now and then, by its metadata alone, and finds what the watches missed."""

import asyncio
import logging

from finetune_operator.controller.cache import Change, Store, concerned
from finetune_operator.kube.client import ApiError, Cluster
from finetune_operator.kube.kinds import WATCHED, Kind, key_of
from finetune_operator.kube.workqueue import WorkQueue
from finetune_operator.metrics import AUDIT_FINDINGS, JOBS

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 2.0
_OBJECTS_A_SECOND = 25
"""On the average, however many there are: to list tens of thousands takes seconds of CPU time."""


class Audit:
    """A complete comparison of the store with the cluster."""

    def __init__(self, cluster: Cluster, store: Store, queue: WorkQueue, seconds: float) -> None:
        """Audit every `seconds` seconds, or as seldom as so many objects allow; count as often."""
        self._cluster, self._store, self._queue, self._seconds = cluster, store, queue, seconds

    async def run(self, synced: asyncio.Event) -> None:
        """Audit for ever, once everything was listed; an audit that fails is tried again soon."""
        await synced.wait()
        pause = self._seconds
        while True:
            await asyncio.sleep(pause)
            try:
                listed = [await self._audit(kind) for kind in WATCHED]
                pause = find_pause(self._seconds, sum(listed))
            except ApiError as error:
                _LOG.warning("the audit comes again: %s", error)
                pause = _RETRY_SECONDS

    async def count(self) -> None:
        """Keep the gauge of jobs up to date for ever, in the operator that leads."""
        while True:
            await asyncio.sleep(self._seconds)
            if self._queue.is_open:
                count_jobs(self._store)

    async def _audit(self, kind: Kind) -> int:
        """Compare the objects of a kind; return how many there are."""
        known = self._store.uids(kind.name)
        listed, version = await self._cluster.list_all(kind, metadata_only=True)
        for one in listed:
            if self._store.is_behind(one):
                found = await self._cluster.find(kind, one["metadata"]["namespace"], one["metadata"]["name"])
                self._tell(kind, self._store.put(found) if found else None)
        # Last: a server whose pods were replaced would have none until the new ones are read.
        for change in self._store.retain(kind.name, {one["metadata"]["uid"] for one in listed}, known):
            self._tell(kind, change)
        self._store.forget_deletions(version)
        return len(listed)

    def _tell(self, kind: Kind, change: Change | None) -> None:
        if change is None:
            return
        AUDIT_FINDINGS.labels(kind.name).inc()
        _LOG.info("a watch has missed %s", " ".join(key_of(change.manifest)))
        for key in concerned(self._store, change):
            self._queue.add(key)


def find_pause(seconds: float, listed: int) -> float:
    """Return the seconds until the next audit after one that listed so many objects."""
    return max(seconds, listed / _OBJECTS_A_SECOND)


def count_jobs(store: Store) -> None:
    """Bring the gauge of jobs by stage and reason up to date."""
    JOBS.clear()
    for key in store.keys("FineTuneJob"):
        status = (store.get(key) or {}).get("status") or {}
        JOBS.labels(status.get("stage", "Pending"), status.get("reason", "Pending")).inc()
