"""One run: a lifecycle in a namespace of its own, with a fault, judged by the fault-free one."""

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
"""How long nothing may happen before things count as they will stay."""
_MOST_SECONDS = 300.0
_MOST_PROCESSES = 40
_REFUSED = "CreateRefused"
"""What is told where the fault is that the API server refuses something."""
_SIDE_BY_SIDE = 12


@dataclass
class Verdict:
    """How a run went."""

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
    said: list[str] = field(default_factory=list)
    """What the operators logged, where something went wrong."""

    @property
    def problems(self) -> list[str]:
        """Everything that must not be."""
        return self.divergences + self.repeated_trainings + self.orphans + self.leaked_writes


class Stage:
    """What all runs share: the cluster, the proxy, the players, and the fault-free ends."""

    def __init__(self, client: Client, directory: Path, seed: int) -> None:
        self.client, self.directory, self.seed = client, directory, seed
        self.proxy, self.world, self.acting = Proxy(client), World(client), PodSimulator(client)
        self._numbers = itertools.count(1)
        self._room = asyncio.Semaphore(_SIDE_BY_SIDE)
        self._references: dict[str, asyncio.Task[Verdict]] = {}

    @classmethod
    @asynccontextmanager
    async def set_up(cls, cluster: Cluster, directory: Path, seed: int) -> AsyncIterator[Self]:
        """Be there for runs while the body runs."""
        operators.warm_up()
        async with AsyncExitStack() as stack:
            stage = cls(await stack.enter_async_context(connect(cluster)), directory, seed)
            await stack.enter_async_context(stage.proxy.serve())
            shared = [asyncio.create_task(stage.world.run()), asyncio.create_task(stage.acting.run())]
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
        """Return how a lifecycle goes without any fault; it is run once."""
        if lifecycle not in self._references:
            self._references[lifecycle] = asyncio.create_task(self._take_turn(lifecycle, None, None))
        return await asyncio.shield(self._references[lifecycle])

    async def run(self, lifecycle: str, fault: Fault) -> Verdict:
        """Run a lifecycle with a fault."""
        return await self._take_turn(lifecycle, fault, (await self.reference(lifecycle)).end)

    async def _take_turn(self, lifecycle: str, fault: Fault | None, wanted: End | None) -> Verdict:
        async with self._room:
            return await self._run(lifecycle, fault, wanted)

    async def _run(self, lifecycle: str, fault: Fault | None, wanted: End | None) -> Verdict:
        began = time.monotonic()
        namespace = f"run-{next(self._numbers):05}"
        traffic, part = Traffic(namespace, fault, self.seed), Part()
        scene = await self.world.enter(namespace)
        self.acting.play(namespace, part)
        company = Company(self.proxy, traffic, self.directory / namespace)
        # Two at once are two that lead, each by a Lease of its own, which one Lease would not let be.
        pods = ("operator-1", "operator-2") if fault and fault.kind is Kind.TWO else ("operator-1",)
        tasks = [asyncio.create_task(company.run(pod)) for pod in pods]
        user = User(self.client, namespace, scene, part)
        life = asyncio.create_task(_live(lifecycle, user, wanted, lambda: _may_lose_events(fault, traffic.struck)))
        done, _ = await asyncio.wait([life, *tasks], timeout=_MOST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in (life, *tasks):
            task.cancel()
        await asyncio.gather(life, *tasks, return_exceptions=True)
        end = describe_end(scene, namespace)
        verdict = Verdict(lifecycle, fault, time.monotonic() - began, end, traffic.points, traffic.struck)
        if life not in done:
            verdict.divergences.append(f"not done in {_MOST_SECONDS:.0f} s; waits for {scene.waits_for or 'the end'}")
        for task in done:
            task.result()
        self._judge(verdict, scene, namespace, traffic, wanted)
        verdict.divergences += company.errors()
        if verdict.problems:
            verdict.said = company.said()
        self.world.leave(namespace)
        return verdict

    def _judge(self, verdict: Verdict, scene: Scene, namespace: str, traffic: Traffic, wanted: End | None) -> None:
        if wanted is not None:
            verdict.divergences += find_difference(wanted, verdict.end)
            untold = _differ(verdict.lifecycle, wanted, verdict.end)
            if untold and not _may_lose_events(verdict.fault, verdict.struck):
                verdict.divergences.append(f"never told: {', '.join(sorted(untold))}")
            strange = {one for one in _differ(verdict.lifecycle, verdict.end, wanted) if not one.endswith(_REFUSED)}
            if strange:
                verdict.divergences.append(f"told without a reason: {', '.join(sorted(strange))}")
        verdict.repeated_trainings = find_repeated(scene)
        verdict.orphans = find_orphans(scene)
        verdict.leaked_writes = find_leaks(scene, namespace, traffic.writes)


def _differ(lifecycle: str, told: End, other: End) -> set[str]:
    """Return the events that were told here and not there, but for those that chance tells."""
    return {one for one in told.events - other.events if not one.endswith(LIFECYCLES[lifecycle].by_chance)}


def _may_lose_events(fault: Fault | None, struck: list[Point]) -> bool:
    """Tell whether an event may be missing.

    It follows its status: a process that dies between them, or does not hear that the status was written, tells it no
    more. One that is refused is given up, and who sees late sees several steps as one.
    """
    if fault is None:
        return False
    # An API server that goes away answers nothing of what it just did.
    if fault.loses_events or fault.kind in (*CRASHES, Kind.AWAY, Kind.DOWN):
        return True
    refused = ("events", "/status") if fault.kind is Kind.UNPROCESSABLE else "/status"
    return any(point.is_write and point.resource.endswith(refused) for point in struck)


async def _live(lifecycle: str, user: User, wanted: End | None, may_lose_events: Callable[[], bool]) -> None:
    """Do what the user does, and wait until things are as they should be and stay so, and all was told."""
    scene = user.scene
    await LIFECYCLES[lifecycle].live(user)
    patience = 2
    while True:
        scene.changed.clear()
        try:
            async with asyncio.timeout(_QUIET_SECONDS if wanted else 3 * _QUIET_SECONDS):
                await scene.changed.wait()
        except TimeoutError:
            end = describe_end(scene, user.namespace)
            if (wanted is None or end.objects == wanted.objects) and not find_orphans(scene):
                patience -= 1
                if wanted is None or not _differ(lifecycle, wanted, end) or (patience <= 0 and may_lose_events()):
                    return
            else:
                await scene.changed.wait()


class Company:
    """The operators of a run: whoever ends is started again, as a kubelet would."""

    def __init__(self, proxy: Proxy, traffic: Traffic, directory: Path) -> None:
        self._proxy, self._traffic, self._directory = proxy, traffic, directory
        self._numbers = itertools.count(1)
        self._processes: list[operators.Process] = []
        self._ended: list[operators.Process] = []

    async def run(self, pod: str) -> None:
        """Have an operator running in a pod until cancelled."""
        fault, namespace = self._traffic.fault, self._traffic.namespace
        resync = operators.RESYNC_OFTEN if fault and fault.loses_events else operators.RESYNC_SELDOM
        for number in self._numbers:
            assert number <= _MOST_PROCESSES, "operators end again and again"
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
        """Return what the operators logged that nobody expects, and the ends that nobody caused."""
        ended = [f"a process ended by itself with status {process.exit_status}" for process in self._ended]
        return ended + [error for process in self._processes for error in process.errors()]

    def said(self) -> list[str]:
        """Return what the operators logged, each line with the number of the process."""
        return [f"operator {number}: {line}" for number, one in enumerate(self._processes, 1) for line in one.said()]
