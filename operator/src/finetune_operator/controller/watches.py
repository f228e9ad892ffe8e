"""The event feed: kopf's shell and its watch streams. They fill the store and the queue.

kopf's handlers of objects are left out: they copy and compare each object for changes that only annotations of kopf's
own would tell, which costs more than everything else that the operator does with an event (docs/scale.md).
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

from finetune_operator.controller.cache import Change, Store, concerned
from finetune_operator.kube.kinds import WATCHED, Kind, Manifest
from finetune_operator.kube.workqueue import WorkQueue

_LOG = logging.getLogger(__name__)
_REQUEST_TIMEOUT = 10
_SERVER_TIMEOUT = 290
_PAGE = 500
_LONGEST_DELAY = 30.0


class _EndlessBackoff:
    """Delays between tries to reach the API server: growing, jittered, and without an end."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1)  # noqa: S311 - jitter
            delay = min(delay * 2, _LONGEST_DELAY)


class Feeds:
    """The watches of every kind in all namespaces."""

    def __init__(self, store: Store, queue: WorkQueue) -> None:
        """Fill a store, and a queue with the keys of what must be looked at."""
        self._store, self._queue = store, queue
        self._unlisted = {kind.name for kind in WATCHED}
        self.synced = asyncio.Event()
        """Set once everything was listed: before, everything would look new, and nothing may be written."""

    async def run(self, told: asyncio.Event) -> None:
        """Watch until cancelled; SIGTERM and SIGINT set `told` and do nothing else."""
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
            # Only here do tasks inherit what kopf's client needs to log in.
            tasks.extend(asyncio.create_task(self._follow(kind, settings), name=kind.plural) for kind in WATCHED)

        @kopf.on.cleanup(registry=registry)
        async def stop(**_: Any) -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        others = asyncio.all_tasks()
        shell = await kopf.spawn_tasks(registry=registry, settings=settings, standalone=True, clusterwide=True)
        # kopf's own answer is to end the watches first and to wait for seconds: a leader would lead blindly meanwhile.
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, told.set)
        await kopf.run_tasks(shell, ignored=others)

    async def _follow(self, kind: Kind, settings: kopf.OperatorSettings) -> None:
        """Take over what happens to the objects of a kind; a stream that ends begins anew, with a list."""
        resource = kopf.Resource(kind.group, kind.version, kind.plural, kind.name, namespaced=True)
        loop, delays = asyncio.get_running_loop(), iter(_EndlessBackoff())
        while True:
            began, known = loop.time(), self._store.uids(kind.name)
            stream: Any = watching.continuous_watch(
                settings=settings, resource=resource, namespace=None, operator_pause_waiter=loop.create_future()
            )
            try:
                async with aclosing(stream):
                    await self._take(kind, stream, known)
            except (errors.APIError, watching.WatchingError, aiohttp.ClientError, OSError, ValueError) as error:
                _LOG.warning("the watch of %s begins anew: %s", kind.plural, error)
            if loop.time() - began > _LONGEST_DELAY:
                delays = iter(_EndlessBackoff())
            await asyncio.sleep(next(delays))

    async def _take(self, kind: Kind, stream: Any, known: set[str]) -> None:
        """Take over a list, and the changes after it; `known` are the uids that were known before."""
        listed: set[str] = set()
        async for event in stream:
            if event is watching.Bookmark.LISTED:
                self._end_list(kind, listed, known)
            elif event["type"] == "DELETED":
                self._tell(self._store.remove(_identify(event, kind)))
            elif event["type"] != "BOOKMARK":
                manifest = _identify(event, kind)
                if event["type"] is None:
                    listed.add(manifest["metadata"]["uid"])
                self._tell(self._store.put(manifest))

    def _end_list(self, kind: Kind, listed: set[str], known: set[str]) -> None:
        """Drop what was known and a complete list does not have: it was deleted while no watch was there to tell."""
        for change in self._store.retain(kind.name, listed, known):
            self._tell(change)
        self._unlisted.discard(kind.name)
        if not self._unlisted:
            self.synced.set()

    def _tell(self, change: Change | None) -> None:
        """Have whom a change concerns looked at, if this operator leads; else all will be looked at when it does."""
        if change and self._queue.is_open:
            for key in concerned(self._store, change):
                self._queue.add(key)


def _login(**context: Any) -> kopf.ConnectionInfo | None:
    """Log in as the pod's service account, or as the current context of a kubeconfig."""
    return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)


def _identify(event: Any, kind: Kind) -> Manifest:
    """Return the object of an event with its kind, which the items of a list lack."""
    return dict(event["object"]) | {"apiVersion": kind.api_version, "kind": kind.name}
