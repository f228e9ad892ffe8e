"""Lists everything now and then: finds what the watches missed, and opens the gate at the start."""

import asyncio
import logging

from finetune_operator.cluster import ApiError, Cluster
from finetune_operator.kinds import WATCHED, Key, Kind, label_of
from finetune_operator.metrics import AUDIT_FINDINGS
from finetune_operator.reconcile import count_jobs
from finetune_operator.store import Store, concerned
from finetune_operator.workqueue import WorkQueue

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 2.0


class Audit:
    """A complete list of every kind, taken over into the store."""

    def __init__(self, cluster: Cluster, store: Store, queue: WorkQueue, seconds: float) -> None:
        """Audit every `seconds` seconds."""
        self._cluster, self._store, self._queue, self._seconds = cluster, store, queue, seconds
        self.synced = asyncio.Event()
        """Set once everything was listed: before, nothing may be written."""

    async def run(self) -> None:
        """Audit for ever; a list that fails is tried again soon."""
        while True:
            try:
                for kind in WATCHED:
                    await self._audit(kind)
            except ApiError as error:
                _LOG.warning("the audit comes again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self.synced.set()
            if self._queue.is_open:  # one operator counts, the one that leads
                count_jobs(self._store)
            await asyncio.sleep(self._seconds)

    async def _audit(self, kind: Kind) -> None:
        known = [key for key in self._store.keys(kind.name) if self._is_selected(kind, key)]
        listed, version = await self._cluster.list_all(kind)
        for change in self._store.replace(kind.name, listed, known, version):
            if self.synced.is_set():
                AUDIT_FINDINGS.labels(kind.name).inc()
            for key in concerned(self._store, change):
                self._queue.add(key)

    def _is_selected(self, kind: Kind, key: Key) -> bool:
        """Two selections list pods: an object that one of them cannot see has not gone."""
        manifest = self._store.get(key)
        return manifest is not None and (kind.selector is None or label_of(manifest, kind.selector) is not None)
