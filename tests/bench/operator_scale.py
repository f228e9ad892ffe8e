"""What the operator does with thousands of FineTuneJobs, on a real API server with its controllers.

There is no node: pods are played by `fleet.py`, which says of each that it runs. Times are taken by the same client,
from the answer to a job's creation to the watch event of its first Job.
"""

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from api.conftest import Operator, finetunejob
from bench.fleet import Fleet, watch_fleet
from cluster.control_plane import NODELESS_PORTS, Cluster, control_plane, install_crds, start_controllers
from finetune_operator.settings import Settings
from waiting import wait_for

_BURST = 1_000
_NAMESPACES = 20
_ROUNDS = 10
_ROUND = 200
_HEADLINE = 10_000
_USUAL = 20
"""Requests in a second that Kubernetes' controllers make by default."""
_FAILING = "failing"
_RESYNC = {"resyncSeconds": Settings.model_fields["resync_seconds"].default}
"""As often as the chart has them."""


@dataclass
class _Bench:
    """What the steps of the benchmark share."""

    cluster: Cluster
    operator: Operator
    fleet: Fleet
    made: int = 0

    def next_jobs(self, count: int) -> list[dict[str, Any]]:
        """Return FineTuneJobs with names of their own, over all namespaces."""
        numbers = range(self.made, self.made + count)
        self.made += count
        return [finetunejob(f"job-{number}", _namespace(number % _NAMESPACES)) for number in numbers]

    async def burst(self, count: int) -> tuple[float, list[float]]:
        """Create jobs at once; return how many got their first Job in a second, and after how long each did."""
        jobs = self.next_jobs(count)
        names = [job["metadata"]["name"] for job in jobs]
        began = time.monotonic()
        await self.fleet.create(jobs)
        await self.fleet.wait_until_begun(names, 600)
        return count / (time.monotonic() - began), self.fleet.delays(names)

    async def backlog(self, count: int) -> float:
        """Create jobs while the operator holds still; return how many get their first Job in a second afterwards."""
        jobs = self.next_jobs(count)
        with self.operator.paused():
            await self.fleet.create(jobs)
        began = time.monotonic()
        await self.fleet.wait_until_begun([job["metadata"]["name"] for job in jobs], 600)
        return count / (time.monotonic() - began)

    def writes(self) -> float:
        """Return how much the operator has written since it was started."""
        return self.operator.metric("finetune_operator_writes_total")

    async def settle(self) -> None:
        """Wait until the operator has nothing to write any more."""
        seen, still = -1.0, 0
        while still < 5:
            await asyncio.sleep(1)
            now = self.writes()
            still = still + 1 if now == seen else 0
            seen = now

    async def wait_until_looked_at(self) -> None:
        """Wait until the operator has looked at every object since it was started."""
        looks = "finetune_operator_reconcile_seconds_count"
        await asyncio.to_thread(
            wait_for, lambda: self.operator.metric(looks) >= self.made, "a look at every object", 300
        )

    @contextlib.asynccontextmanager
    async def company(self) -> AsyncIterator[Operator]:
        """Have the operator lead as the chart's does, and return another one that stands by.

        Elsewhere its Lease is so long that it leads on when it was frozen: it is renewed as seldom.
        """
        usual = self.operator
        assert usual.stop() == 0
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            self.operator, standby = (
                Operator(self.cluster.kubeconfig, Path(directory), "--lease-seconds=15", settings=_RESYNC)
                for directory in (one, other)
            )
            self.operator.start()
            await self.wait_until_looked_at()
            standby.start()
            try:
                yield standby
            finally:
                standby.stop()
                self.operator.stop()
        self.operator = usual
        usual.start()


def measure_operator(sizes: list[int], idle_seconds: float) -> dict[str, Any]:
    """Return the figures; `sizes` are the numbers of FineTuneJobs at which the costs are taken, ascending."""
    with control_plane() as cluster, tempfile.TemporaryDirectory() as scratch:
        install_crds(cluster)
        start_controllers(cluster, NODELESS_PORTS, _USUAL)
        operator = Operator(cluster.kubeconfig, Path(scratch))
        operator.start()
        try:
            return asyncio.run(_measure(cluster, operator, sizes, idle_seconds))
        finally:
            operator.stop()


async def _measure(cluster: Cluster, operator: Operator, sizes: list[int], idle_seconds: float) -> dict[str, Any]:
    async with _prepare(cluster, operator) as bench:
        await bench.burst(100)
        await bench.settle()
        before = bench.writes()
        rate, delays = await bench.burst(_BURST)
        await bench.settle()
        figures: dict[str, Any] = {
            "objects_per_s": round(rate),
            "p50_s": round(_quantile(delays, 0.5), 2),
            "p99_s": round(_quantile(delays, 0.99), 2),
            "writes_per_object": round((bench.writes() - before) / _BURST, 2),
        }
        figures["backlog_objects_per_s"] = round(await bench.backlog(_BURST))
        await bench.settle()
        _tell(figures)
        # Else their pods alone would take hours.
        start_controllers(cluster, NODELESS_PORTS)
        growth = []
        for size in sizes:
            growth.append(await _grow(bench, size))
            if size == min(_HEADLINE, sizes[-1]):
                figures |= growth[-1] | {name: figures[name] for name in ("objects_per_s", "p99_s")}
                figures |= await _measure_idleness(bench, idle_seconds)
        start_controllers(cluster, NODELESS_PORTS, _USUAL)
        return figures | {"noisy_neighbour_p99_ratio": await _measure_neighbour(bench), "growth": growth}


@contextlib.asynccontextmanager
async def _prepare(cluster: Cluster, operator: Operator) -> AsyncIterator[_Bench]:
    """Make the namespaces, one of them with a quota that allows no Job, and connect."""
    async with watch_fleet(cluster) as fleet:
        for name in [*map(_namespace, range(_NAMESPACES)), _FAILING]:
            await fleet.post("/api/v1", "namespaces", {"metadata": {"name": name}})
        quota = {"metadata": {"name": "none", "namespace": _FAILING}, "spec": {"hard": {"count/jobs.batch": "0"}}}
        await fleet.post("/api/v1", "resourcequotas", quota)
        yield _Bench(cluster, operator, fleet)


async def _measure_neighbour(bench: _Bench) -> float:
    """Return what a job that fails for ever costs the others: the ratio of their p99 with it and without it.

    The p99 of one turn is the luck of two jobs: the medians over all turns are compared. Who comes first changes.
    """
    p99s: dict[bool, list[float]] = {False: [], True: []}
    for number in range(_ROUNDS):
        for is_beside in (False, True) if number % 2 == 0 else (True, False):
            bad = f"bad-{number}"
            if is_beside:
                await bench.fleet.post("/apis/finetune.dev/v1alpha1", "finetunejobs", finetunejob(bad, _FAILING))
            _, delays = await bench.burst(_ROUND)
            p99s[is_beside].append(_quantile(delays, 0.99))
            await bench.settle()
            if is_beside:
                await bench.fleet.delete(f"/apis/finetune.dev/v1alpha1/namespaces/{_FAILING}/finetunejobs/{bad}")
    return round(statistics.median(p99s[True]) / statistics.median(p99s[False]), 3)


async def _grow(bench: _Bench, size: int) -> dict[str, Any]:
    """Make jobs until there are `size`, the last of them in one burst; return what that and a restart costs."""
    await bench.fleet.create(bench.next_jobs(max(size - _BURST - bench.made, 0)))
    await bench.settle()
    rate, delays = await bench.burst(_BURST)
    await bench.fleet.wait_until_running(bench.made, 1200)
    await bench.settle()
    assert bench.operator.stop() == 0
    began = time.monotonic()
    bench.operator.start()
    synced = time.monotonic() - began
    await bench.wait_until_looked_at()
    looked = time.monotonic() - began
    figures = {
        "objects": bench.made,
        "objects_per_s": round(rate),
        "p99_s": round(_quantile(delays, 0.99), 2),
        "restart_synced_s": round(synced, 1),
        "restart_looked_at_s": round(looked, 1),
        "restart_writes": int(bench.writes()),
        "rss_mb": psutil.Process(bench.operator.pid).memory_info().rss >> 20,
    }
    _tell(figures)
    return figures


async def _measure_idleness(bench: _Bench, seconds: float) -> dict[str, Any]:
    """Return what a leader and a standby cost while nothing happens, their resyncs included."""
    async with bench.company() as standby:
        await bench.settle()
        pids, writes, began = (bench.operator.pid, standby.pid), bench.writes(), time.monotonic()
        before = [_cpu_seconds(pid) for pid in pids]
        await asyncio.sleep(seconds)
        passed = time.monotonic() - began
        leading, standing_by = (
            round(100 * (_cpu_seconds(pid) - then) / passed, 2) for pid, then in zip(pids, before, strict=True)
        )
        figures = {
            "idle_writes": int(bench.writes() - writes),
            "idle_cpu_percent": leading,
            "standby_idle_cpu_percent": standing_by,
            "idle_objects": bench.made,
            "idle_s": round(seconds),
        }
    _tell(figures)
    return figures


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _namespace(number: int) -> str:
    return f"bench-{number}"


def _quantile(ascending: list[float], share: float) -> float:
    return ascending[min(int(len(ascending) * share), len(ascending) - 1)]


def _tell(figures: dict[str, Any]) -> None:
    sys.stderr.write(f"{figures}\n")
    sys.stderr.flush()
