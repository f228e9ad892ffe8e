"""Periodically lists the metadata of all objects and finds the changes that the watches missed."""

import asyncio
import logging

from finetune_operator.controller.cache import Cache, Change
from finetune_operator.controller.triggers import keys_to_reconcile
from finetune_operator.kube.client import ApiError, KubeClient
from finetune_operator.kube.kinds import WATCHED, Kind, key_of
from finetune_operator.kube.workqueue import WorkQueue
from finetune_operator.metrics import JOBS, MISSED_CHANGES

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 2.0
_OBJECTS_PER_SECOND = 25
"""Average rate, at any number of objects: listing tens of thousands takes seconds of CPU time."""


class Resync:
    """Compares the whole cache with the cluster."""

    def __init__(self, client: KubeClient, cache: Cache, queue: WorkQueue, seconds: float) -> None:
        """Resync every `seconds` seconds, or less often if there are many objects; count jobs every `seconds`."""
        self._client, self._cache, self._queue, self._seconds = client, cache, queue, seconds

    async def run(self, synced: asyncio.Event) -> None:
        """Resync periodically while this operator leads, and soon after a failure; this never returns.

        A standby does not: what its watches miss is found in the first resync after it leads.
        """
        await synced.wait()
        pause = self._seconds
        while True:
            await asyncio.sleep(pause)
            if not self._queue.is_open:
                pause = self._seconds
                continue
            try:
                listed = [await self._resync(kind) for kind in WATCHED]
                pause = compute_pause(self._seconds, sum(listed))
            except ApiError as error:
                _LOG.warning("resync failed, retrying in %.0f s: %s", _RETRY_SECONDS, error)
                pause = _RETRY_SECONDS

    async def run_job_count(self) -> None:
        """Update the gauge of jobs periodically while this operator leads; this never returns."""
        while True:
            await asyncio.sleep(self._seconds)
            if self._queue.is_open:
                count_jobs(self._cache)

    async def _resync(self, kind: Kind) -> int:
        """Compare the objects of a kind with the cache; return how many there are."""
        known = self._cache.uids(kind.name)
        listed, version = await self._client.list_all(kind, metadata_only=True)
        for item in listed:
            if self._cache.is_outdated(item):
                manifest = await self._client.get(kind, item["metadata"]["namespace"], item["metadata"]["name"])
                self._enqueue(kind, self._cache.put(manifest) if manifest else None)
        # Deletions come last: a server whose pods were replaced would have none until the new ones are read.
        for change in self._cache.remove_unlisted(kind.name, {item["metadata"]["uid"] for item in listed}, known):
            self._enqueue(kind, change)
        self._cache.prune_tombstones(version)
        return len(listed)

    def _enqueue(self, kind: Kind, change: Change | None) -> None:
        if change is None:
            return
        MISSED_CHANGES.labels(kind.name).inc()
        _LOG.info("resync found a change that the watch missed: %s", " ".join(key_of(change.manifest)))
        for key in keys_to_reconcile(self._cache, change):
            self._queue.add(key)


def compute_pause(seconds: float, listed: int) -> float:
    """Return the seconds until the next resync after one that listed so many objects."""
    return max(seconds, listed / _OBJECTS_PER_SECOND)


def count_jobs(cache: Cache) -> None:
    """Update the gauge of jobs by stage and reason."""
    JOBS.clear()
    for key in cache.keys("FineTuneJob"):
        status = (cache.get(key) or {}).get("status") or {}
        JOBS.labels(status.get("stage", "Pending"), status.get("reason", "Pending")).inc()
