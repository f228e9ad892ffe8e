"""The event feed: kopf's watches, and nothing else of kopf. They fill the store and the queue."""

import asyncio
import random
import signal
from collections.abc import Iterator
from typing import Any

import kopf

from finetune_operator.kinds import WATCHED, Kind, Manifest
from finetune_operator.store import Store, concerned
from finetune_operator.workqueue import WorkQueue

_REQUEST_TIMEOUT = 10
_SERVER_TIMEOUT = 290


class _EndlessBackoff:
    """Delays between tries to reach the API server: growing, jittered, and without an end."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1)  # noqa: S311 - jitter
            delay = min(delay * 2, 30)


async def run_feeds(store: Store, queue: WorkQueue, stop: asyncio.Event) -> None:
    """Watch every kind in all namespaces until cancelled; SIGTERM and SIGINT set `stop` and nothing else."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)
    for kind in WATCHED:
        _register(registry, kind, store, queue)
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = _REQUEST_TIMEOUT
    settings.networking.error_backoffs = _EndlessBackoff()
    settings.watching.server_timeout = _SERVER_TIMEOUT
    loop, others = asyncio.get_running_loop(), asyncio.all_tasks()
    loop.set_exception_handler(_forgive_watches)
    tasks = await kopf.spawn_tasks(registry=registry, settings=settings, standalone=True, clusterwide=True)
    # kopf's own answer is to end the watches first, and to look on for seconds: a leader would lead blindly meanwhile.
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    await kopf.run_tasks(tasks, ignored=others)


def _forgive_watches(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of no error at the end where kopf was cancelled in the middle of an event, and left its watch half open."""
    if "asyncgen" not in context:
        loop.default_exception_handler(context)


def _login(**context: Any) -> kopf.ConnectionInfo | None:
    """Log in as the pod's service account, or as the current context of a kubeconfig."""
    return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)


def _register(registry: kopf.OperatorRegistry, kind: Kind, store: Store, queue: WorkQueue) -> None:
    labels = {kind.selector: kopf.PRESENT} if kind.selector else None

    @kopf.on.event(
        kind.group,
        kind.version,
        kind.plural,
        labels=labels,
        registry=registry,
        id=f"{kind.plural}-{kind.selector}",
    )
    async def on_event(*, event: Any, **_: Any) -> None:
        manifest: Manifest = dict(event["object"]) | {"apiVersion": kind.api_version, "kind": kind.name}
        deleted = event["type"] == "DELETED"
        change = store.remove(manifest) if deleted else store.put(manifest)
        for key in concerned(store, change) if change else ():
            queue.add(key)
