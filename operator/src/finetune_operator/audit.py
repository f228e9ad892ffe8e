"""Lists everything now and then, by its metadata alone, and finds what the watches missed."""

import asyncio
import logging

from finetune_operator.cluster import ApiError, Cluster
from finetune_operator.kinds import WATCHED, Kind, key_of
from finetune_operator.metrics import AUDIT_FINDINGS, JOBS
from finetune_operator.store import Change, Store, concerned
from finetune_operator.workqueue import WorkQueue

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 2.0


class Audit:
    """A complete comparison of the store with the cluster."""

    def __init__(self, cluster: Cluster, store: Store, queue: WorkQueue, seconds: float) -> None:
        """Audit every `seconds` seconds."""
        self._cluster, self._store, self._queue, self._seconds = cluster, store, queue, seconds

    async def run(self, synced: asyncio.Event) -> None:
        """Audit for ever, once everything was listed; an audit that fails is tried again soon."""
        await synced.wait()
        pause = self._seconds
        while True:
            if self._queue.is_open:  # one operator counts, the one that leads
                count_jobs(self._store)
            await asyncio.sleep(pause)
            try:
                for kind in WATCHED:
                    await self._audit(kind)
                pause = self._seconds
            except ApiError as error:
                _LOG.warning("the audit comes again: %s", error)
                pause = _RETRY_SECONDS

    async def _audit(self, kind: Kind) -> None:
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

    def _tell(self, kind: Kind, change: Change | None) -> None:
        if change is None:
            return
        AUDIT_FINDINGS.labels(kind.name).inc()
        _LOG.info("a watch has missed %s", " ".join(key_of(change.manifest)))
        for key in concerned(self._store, change):
            self._queue.add(key)


def count_jobs(store: Store) -> None:
    """Bring the gauge of jobs by stage and reason up to date."""
    JOBS.clear()
    for key in store.keys("FineTuneJob"):
        status = (store.get(key) or {}).get("status") or {}
        JOBS.labels(status.get("stage", "Pending"), status.get("reason", "Pending")).inc()
