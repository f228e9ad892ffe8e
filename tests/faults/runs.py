"""Runs a lifecycle with a fault in a separate namespace and compares its end with the fault-free run."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from api.player import Part, PodSimulator
from cluster.client import Client, connect
from cluster.control_plane import Cluster
from faults import operators
from faults.faults import CRASHES, Fault, Kind, Point
from faults.lifecycles import LIFECYCLES
from faults.oracle import End, describe_end, find_difference, find_leaks, find_orphans, find_repeated
from faults.proxy import Caller, Proxy, Traffic
from faults.world import Scene, User, World
from finetune_operator.main import LEADERSHIP_LOST

_QUIET_SECONDS = 1.0
"""Seconds without a change after which the state counts as stable."""
_MAX_SECONDS = 300.0
_MAX_PROCESSES = 40
_REFUSED_REASON = "CreateRefused"
"""Reason of the event for a request that the API server refuses."""
_PARALLEL_RUNS = 12


@dataclass
class Verdict:
    """The result of a run."""

    lifecycle: str
    fault: Fault | None
    seconds: float
    end: End
    points: list[Point]
    struck: list[Point]
    divergences: list[str] = field(default_factory=list)
    repeated_trainings: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    leaked_writes: list[str] = field(default_factory=list)
    log_lines: list[str] = field(default_factory=list)
    """Logs of the operators, for runs with problems."""

    @property
    def problems(self) -> list[str]:
        """All problems of the run."""
        return self.divergences + self.repeated_trainings + self.orphans + self.leaked_writes


class Stage:
    """What all runs share: cluster, proxy, pod simulator and fault-free results."""

    def __init__(self, client: Client, directory: Path, seed: int) -> None:
        self.client, self.directory, self.seed = client, directory, seed
        self.proxy, self.world, self.pods = Proxy(client), World(client), PodSimulator(client)
        self._numbers = itertools.count(1)
        self._slots = asyncio.Semaphore(_PARALLEL_RUNS)
        self._references: dict[str, asyncio.Task[Verdict]] = {}

    @classmethod
    @asynccontextmanager
    async def set_up(cls, cluster: Cluster, directory: Path, seed: int) -> AsyncIterator[Self]:
        """Serve runs while the body runs."""
        operators.warm_up()
        async with AsyncExitStack() as stack:
            stage = cls(await stack.enter_async_context(connect(cluster)), directory, seed)
            await stack.enter_async_context(stage.proxy.serve())
            shared = [asyncio.create_task(stage.world.run()), asyncio.create_task(stage.pods.run())]
            try:
                yield stage
            finally:
                for task in shared:
                    task.cancel()
                results = await asyncio.gather(*shared, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def reference(self, lifecycle: str) -> Verdict:
        """Return the verdict of a lifecycle without a fault; it runs once."""
        if lifecycle not in self._references:
            self._references[lifecycle] = asyncio.create_task(self._run_in_slot(lifecycle, None, None))
        return await asyncio.shield(self._references[lifecycle])

    async def run(self, lifecycle: str, fault: Fault) -> Verdict:
        """Run a lifecycle with a fault."""
        return await self._run_in_slot(lifecycle, fault, (await self.reference(lifecycle)).end)

    async def _run_in_slot(self, lifecycle: str, fault: Fault | None, expected: End | None) -> Verdict:
        async with self._slots:
            return await self._run(lifecycle, fault, expected)

    async def _run(self, lifecycle: str, fault: Fault | None, expected: End | None) -> Verdict:
        started = time.monotonic()
        namespace = f"run-{next(self._numbers):05}"
        traffic, part = Traffic(namespace, fault, self.seed), Part()
        scene = await self.world.enter(namespace)
        self.pods.play(namespace, part)
        operator_pods = OperatorPods(self.proxy, traffic, self.directory / namespace)
        # Two operators lead at once only with separate Leases.
        pods = ("operator-1", "operator-2") if fault and fault.kind is Kind.TWO else ("operator-1",)
        tasks = [asyncio.create_task(operator_pods.run(pod)) for pod in pods]
        user = User(self.client, namespace, scene, part)
        life = asyncio.create_task(
            _run_lifecycle(lifecycle, user, expected, lambda: _may_lose_events(fault, traffic.struck))
        )
        done, _ = await asyncio.wait([life, *tasks], timeout=_MAX_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in (life, *tasks):
            task.cancel()
        await asyncio.gather(life, *tasks, return_exceptions=True)
        end = describe_end(scene, namespace)
        verdict = Verdict(lifecycle, fault, time.monotonic() - started, end, traffic.points, traffic.struck)
        if life not in done:
            verdict.divergences.append(f"not done in {_MAX_SECONDS:.0f} s; waits for {scene.waits_for or 'the end'}")
        for task in done:
            task.result()
        self._check(verdict, scene, namespace, traffic, expected)
        verdict.divergences += operator_pods.errors()
        if verdict.problems:
            verdict.log_lines = operator_pods.log_lines()
        self.world.leave(namespace)
        return verdict

    def _check(self, verdict: Verdict, scene: Scene, namespace: str, traffic: Traffic, expected: End | None) -> None:
        if expected is not None:
            verdict.divergences += find_difference(expected, verdict.end)
            missing = _missing_events(verdict.lifecycle, expected, verdict.end)
            if missing and not _may_lose_events(verdict.fault, verdict.struck):
                verdict.divergences.append(f"missing events: {', '.join(sorted(missing))}")
            unexpected = {
                event
                for event in _missing_events(verdict.lifecycle, verdict.end, expected)
                if not event.endswith(_REFUSED_REASON)
            }
            if unexpected:
                verdict.divergences.append(f"unexpected events: {', '.join(sorted(unexpected))}")
        verdict.repeated_trainings = find_repeated(scene)
        verdict.orphans = find_orphans(scene)
        verdict.leaked_writes = find_leaks(scene, namespace, traffic.writes)


def _missing_events(lifecycle: str, end: End, other: End) -> set[str]:
    """Return the events of `end` that `other` lacks, without those that depend on timing."""
    return {event for event in end.events - other.events if not event.endswith(LIFECYCLES[lifecycle].by_chance)}


def _may_lose_events(fault: Fault | None, struck: list[Point]) -> bool:
    """Return whether an event may be missing.

    An event is sent after its status write: a process that dies in between, or loses the response of that write, does
    not send it. A refused event is not retried, and a late operator sees several steps as one.
    """
    if fault is None:
        return False
    # An API server that becomes unreachable loses the responses of its last writes.
    if fault.loses_events or fault.kind in (*CRASHES, Kind.AWAY, Kind.DOWN):
        return True
    refused = ("events", "/status") if fault.kind is Kind.UNPROCESSABLE else "/status"
    return any(point.is_write and point.resource.endswith(refused) for point in struck)


async def _run_lifecycle(lifecycle: str, user: User, expected: End | None, may_lose_events: Callable[[], bool]) -> None:
    """Run the user's actions; wait until the state is stable and as expected, and all expected events exist."""
    scene = user.scene
    await LIFECYCLES[lifecycle].run(user)
    patience = 2
    while True:
        scene.changed.clear()
        try:
            async with asyncio.timeout(_QUIET_SECONDS if expected else 3 * _QUIET_SECONDS):
                await scene.changed.wait()
        except TimeoutError:
            end = describe_end(scene, user.namespace)
            if (expected is None or end.objects == expected.objects) and not find_orphans(scene):
                patience -= 1
                if (
                    expected is None
                    or not _missing_events(lifecycle, expected, end)
                    or (patience <= 0 and may_lose_events())
                ):
                    return
            else:
                await scene.changed.wait()


class OperatorPods:
    """The operator pods of a run: restarts a process that ends, as a kubelet would."""

    def __init__(self, proxy: Proxy, traffic: Traffic, directory: Path) -> None:
        self._proxy, self._traffic, self._directory = proxy, traffic, directory
        self._numbers = itertools.count(1)
        self._processes: list[operators.Process] = []
        self._ended: list[operators.Process] = []

    async def run(self, pod: str) -> None:
        """Keep an operator running in a pod until cancelled."""
        fault, namespace = self._traffic.fault, self._traffic.namespace
        resync = operators.RESYNC_OFTEN if fault and fault.loses_events else operators.RESYNC_SELDOM
        for number in self._numbers:
            assert number <= _MAX_PROCESSES, "the operator restarts too often"
            directory, token = self._directory / str(number), f"{namespace}-{number}"
            process = operators.Process(directory, self._proxy.url, token, pod=pod, namespace=namespace, resync=resync)
            self._processes.append(process)
            caller = Caller(process.kill)
            self._proxy.admit(token, caller, self._traffic)
            try:
                await process.run()
            finally:
                is_killed = caller.is_dead
                caller.die()
            if not is_killed and process.exit_status != LEADERSHIP_LOST:
                self._ended.append(process)

    def errors(self) -> list[str]:
        """Return the unexpected errors in the logs, and the exits that no fault caused."""
        ended = [f"a process exited without a fault with status {process.exit_status}" for process in self._ended]
        return ended + [error for process in self._processes for error in process.errors()]

    def log_lines(self) -> list[str]:
        """Return the log lines of all operators with the number of the process."""
        return [
            f"operator {number}: {line}"
            for number, process in enumerate(self._processes, 1)
            for line in process.log_lines()
        ]
