"""The watches of every kind: kopf's runner and its watch streams. They fill the cache and the work queue.

We use none of kopf's object handlers: they copy and compare each object to find changes of kopf's own annotations,
which costs more than everything else that the operator does with an event (docs/scale.md).
"""

import asyncio
import logging
import random
import signal
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import aiohttp
import kopf
from kopf._cogs.clients import errors, watching

from finetune_operator.controller.cache import Cache, Change
from finetune_operator.controller.triggers import keys_to_reconcile
from finetune_operator.kube.kinds import WATCHED, Kind, Manifest
from finetune_operator.kube.workqueue import WorkQueue

_LOG = logging.getLogger(__name__)
_REQUEST_TIMEOUT = 10
_SERVER_TIMEOUT = 290
_PAGE = 500
_LONGEST_DELAY = 30.0


class _EndlessBackoff:
    """Delays between attempts to reach the API server: growing, jittered, without end."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1)  # noqa: S311 - jitter
            delay = min(delay * 2, _LONGEST_DELAY)


class Watches:
    """The watches of every kind in all namespaces."""

    def __init__(self, cache: Cache, queue: WorkQueue) -> None:
        """Fill a cache with objects, and a queue with the keys to reconcile."""
        self._cache, self._queue = cache, queue
        self._unlisted = {kind.name for kind in WATCHED}
        self.synced = asyncio.Event()
        """Set after the first list of every kind: before that every object looks new, so nothing may be written."""

    async def run(self, stop_event: asyncio.Event) -> None:
        """Watch until cancelled; SIGTERM and SIGINT only set `stop_event`."""
        registry = kopf.OperatorRegistry()
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.networking.request_timeout = _REQUEST_TIMEOUT
        settings.networking.error_backoffs = _EndlessBackoff()
        settings.watching.server_timeout = _SERVER_TIMEOUT
        settings.watching.chunk_size = _PAGE
        for kind in WATCHED:
            if kind.selector:
                settings.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.selector
        kopf.on.login(registry=registry)(_login)
        tasks: list[asyncio.Task[None]] = []

        @kopf.on.startup(registry=registry)
        async def start(**_: Any) -> None:
            # Tasks inherit the context variables of kopf's login only if they are created here.
            tasks.extend(asyncio.create_task(self._watch(kind, settings), name=kind.plural) for kind in WATCHED)

        @kopf.on.cleanup(registry=registry)
        async def stop(**_: Any) -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        others = asyncio.all_tasks()
        runner = await kopf.spawn_tasks(registry=registry, settings=settings, standalone=True, clusterwide=True)
        # kopf's own signal handler ends the watches first and waits for seconds: a leader would act on a stale cache.
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, stop_event.set)
        await kopf.run_tasks(runner, ignored=others)

    async def _watch(self, kind: Kind, settings: kopf.OperatorSettings) -> None:
        """List and watch a kind; when the stream ends, start again with a list."""
        resource = kopf.Resource(kind.group, kind.version, kind.plural, kind.name, namespaced=True)
        loop, delays = asyncio.get_running_loop(), iter(_EndlessBackoff())
        while True:
            started, known = loop.time(), self._cache.uids(kind.name)
            stream: Any = watching.continuous_watch(
                settings=settings, resource=resource, namespace=None, operator_pause_waiter=loop.create_future()
            )
            try:
                async with aclosing(stream):
                    await self._process(kind, stream, known)
            except (errors.APIError, watching.WatchingError, aiohttp.ClientError, OSError, ValueError) as error:
                _LOG.warning("restarting the watch of %s: %s", kind.plural, error)
            if loop.time() - started > _LONGEST_DELAY:
                delays = iter(_EndlessBackoff())
            await asyncio.sleep(next(delays))

    async def _process(self, kind: Kind, stream: Any, known: set[str]) -> None:
        """Put a list and the events after it into the cache; `known` are the uids that were cached before."""
        listed: set[str] = set()
        async for event in stream:
            if event is watching.Bookmark.LISTED:
                self._complete_list(kind, listed, known)
            elif event["type"] == "DELETED":
                self._enqueue(self._cache.remove(_manifest_of(event, kind)))
            elif event["type"] != "BOOKMARK":
                manifest = _manifest_of(event, kind)
                if event["type"] is None:
                    listed.add(manifest["metadata"]["uid"])
                self._enqueue(self._cache.put(manifest))

    def _complete_list(self, kind: Kind, listed: set[str], known: set[str]) -> None:
        """Remove cached objects that a complete list lacks: they were deleted while no watch was open."""
        for change in self._cache.remove_unlisted(kind.name, listed, known):
            self._enqueue(change)
        self._unlisted.discard(kind.name)
        if not self._unlisted:
            self.synced.set()

    def _enqueue(self, change: Change | None) -> None:
        """Queue the objects that a change triggers; a standby's queue is closed, and opens with all objects."""
        if change and self._queue.is_open:
            for key in keys_to_reconcile(self._cache, change):
                self._queue.add(key)


def _login(**context: Any) -> kopf.ConnectionInfo | None:
    """Log in as the pod's service account, or as the current context of a kubeconfig."""
    return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)


def _manifest_of(event: Any, kind: Kind) -> Manifest:
    """Return the object of an event with its kind, which the items of a list lack."""
    return dict(event["object"]) | {"apiVersion": kind.api_version, "kind": kind.name}
