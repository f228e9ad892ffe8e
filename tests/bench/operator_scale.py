"""Measures the operator with thousands of FineTuneJobs, on a real API server with its controllers and without a node.

`fleet.py` marks each pod as running. It also takes the times: from the response to the creation of a FineTuneJob to the
watch event of its first Job.
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
_JOBS_PER_ROUND = 200
_HEADLINE_SIZE = 10_000
_DEFAULT_QPS = 20
"""Default limit of requests a second of Kubernetes' controllers."""
_FAILING = "failing"
_RESYNC = {"resyncSeconds": Settings.model_fields["resync_seconds"].default}
"""The interval of the chart."""


@dataclass
class _Bench:
    """State shared by the steps of the benchmark."""

    cluster: Cluster
    operator: Operator
    fleet: Fleet
    created: int = 0
    """FineTuneJobs created so far."""

    def next_jobs(self, count: int) -> list[dict[str, Any]]:
        """Return FineTuneJobs with new names, spread over all namespaces."""
        numbers = range(self.created, self.created + count)
        self.created += count
        return [finetunejob(f"job-{number}", _namespace(number % _NAMESPACES)) for number in numbers]

    async def burst(self, count: int) -> tuple[float, list[float]]:
        """Create jobs at once; return how many got their first Job a second, and the ascending delays in seconds."""
        jobs = self.next_jobs(count)
        names = [job["metadata"]["name"] for job in jobs]
        started = time.monotonic()
        await self.fleet.create(jobs)
        await self.fleet.wait_until_started(names, 600)
        return count / (time.monotonic() - started), self.fleet.delays(names)

    async def backlog(self, count: int) -> float:
        """Create jobs while the operator is paused; return how many get their first Job a second when it resumes."""
        jobs = self.next_jobs(count)
        with self.operator.paused():
            await self.fleet.create(jobs)
        started = time.monotonic()
        await self.fleet.wait_until_started([job["metadata"]["name"] for job in jobs], 600)
        return count / (time.monotonic() - started)

    def writes(self) -> float:
        """Return the number of writes of the operator since it started."""
        return self.operator.metric("finetune_operator_writes_total")

    async def settle(self) -> None:
        """Wait until the operator has written nothing for five seconds."""
        previous, quiet_seconds = -1.0, 0
        while quiet_seconds < 5:
            await asyncio.sleep(1)
            current = self.writes()
            quiet_seconds = quiet_seconds + 1 if current == previous else 0
            previous = current

    async def wait_until_reconciled(self) -> None:
        """Wait until the operator has reconciled every object since it started."""
        reconciles = "finetune_operator_reconcile_seconds_count"
        await asyncio.to_thread(
            wait_for, lambda: self.operator.metric(reconciles) >= self.created, "a reconcile of every object", 300
        )

    @contextlib.asynccontextmanager
    async def lead_with_standby(self) -> AsyncIterator[Operator]:
        """Restart the operator with the chart's Lease duration, and yield a second operator as its standby.

        The other steps use a longer Lease, which the paused operator keeps, but which it renews less often.
        """
        original = self.operator
        assert original.stop() == 0
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            self.operator, standby = (
                Operator(self.cluster.kubeconfig, Path(directory), "--lease-seconds=15", settings=_RESYNC)
                for directory in (first, second)
            )
            self.operator.start()
            await self.wait_until_reconciled()
            standby.start()
            try:
                yield standby
            finally:
                standby.stop()
                self.operator.stop()
        self.operator = original
        original.start()


def measure_operator(sizes: list[int], idle_seconds: float) -> dict[str, Any]:
    """Return the figures; `sizes` are the numbers of FineTuneJobs at which to measure, ascending."""
    with control_plane() as cluster, tempfile.TemporaryDirectory() as scratch:
        install_crds(cluster)
        start_controllers(cluster, NODELESS_PORTS, _DEFAULT_QPS)
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
        _log(figures)
        # With the default limit of requests, the Job controller would take hours to create the pods.
        start_controllers(cluster, NODELESS_PORTS)
        growth = []
        for size in sizes:
            growth.append(await _grow(bench, size))
            if size == min(_HEADLINE_SIZE, sizes[-1]):
                figures |= growth[-1] | {name: figures[name] for name in ("objects_per_s", "p99_s")}
                figures |= await _measure_idleness(bench, idle_seconds)
        start_controllers(cluster, NODELESS_PORTS, _DEFAULT_QPS)
        return figures | {"noisy_neighbour_p99_ratio": await _measure_noisy_neighbor(bench), "growth": growth}


@contextlib.asynccontextmanager
async def _prepare(cluster: Cluster, operator: Operator) -> AsyncIterator[_Bench]:
    """Connect and create the namespaces, one of them with a quota that forbids Jobs."""
    async with watch_fleet(cluster) as fleet:
        for name in [*map(_namespace, range(_NAMESPACES)), _FAILING]:
            await fleet.post("/api/v1", "namespaces", {"metadata": {"name": name}})
        quota = {"metadata": {"name": "none", "namespace": _FAILING}, "spec": {"hard": {"count/jobs.batch": "0"}}}
        await fleet.post("/api/v1", "resourcequotas", quota)
        yield _Bench(cluster, operator, fleet)


async def _measure_noisy_neighbor(bench: _Bench) -> float:
    """Return what a permanently failing job costs the others: the ratio of their p99 with and without it.

    The p99 of one round depends on two jobs, so the medians of all rounds are compared. The order alternates.
    """
    p99s: dict[bool, list[float]] = {False: [], True: []}
    for number in range(_ROUNDS):
        for has_neighbor in (False, True) if number % 2 == 0 else (True, False):
            bad = f"bad-{number}"
            if has_neighbor:
                await bench.fleet.post("/apis/finetune.dev/v1alpha1", "finetunejobs", finetunejob(bad, _FAILING))
            _, delays = await bench.burst(_JOBS_PER_ROUND)
            p99s[has_neighbor].append(_quantile(delays, 0.99))
            await bench.settle()
            if has_neighbor:
                await bench.fleet.delete(f"/apis/finetune.dev/v1alpha1/namespaces/{_FAILING}/finetunejobs/{bad}")
    return round(statistics.median(p99s[True]) / statistics.median(p99s[False]), 3)


async def _grow(bench: _Bench, size: int) -> dict[str, Any]:
    """Create jobs until there are `size`, the last ones in one burst; return the figures of burst and restart."""
    await bench.fleet.create(bench.next_jobs(max(size - _BURST - bench.created, 0)))
    await bench.settle()
    rate, delays = await bench.burst(_BURST)
    await bench.fleet.wait_until_running(bench.created, 1200)
    await bench.settle()
    assert bench.operator.stop() == 0
    started = time.monotonic()
    bench.operator.start()
    synced = time.monotonic() - started
    await bench.wait_until_reconciled()
    reconciled = time.monotonic() - started
    figures = {
        "objects": bench.created,
        "objects_per_s": round(rate),
        "p99_s": round(_quantile(delays, 0.99), 2),
        "restart_synced_s": round(synced, 1),
        "restart_looked_at_s": round(reconciled, 1),
        "restart_writes": int(bench.writes()),
        "rss_mb": psutil.Process(bench.operator.pid).memory_info().rss >> 20,
    }
    _log(figures)
    return figures


async def _measure_idleness(bench: _Bench, seconds: float) -> dict[str, Any]:
    """Return what an idle leader and an idle standby cost, including their resyncs."""
    async with bench.lead_with_standby() as standby:
        await bench.settle()
        pids, writes, started = (bench.operator.pid, standby.pid), bench.writes(), time.monotonic()
        before = [_cpu_seconds(pid) for pid in pids]
        await asyncio.sleep(seconds)
        elapsed = time.monotonic() - started
        leader_percent, standby_percent = (
            round(100 * (_cpu_seconds(pid) - start) / elapsed, 2) for pid, start in zip(pids, before, strict=True)
        )
        figures = {
            "idle_writes": int(bench.writes() - writes),
            "idle_cpu_percent": leader_percent,
            "standby_idle_cpu_percent": standby_percent,
            "idle_objects": bench.created,
            "idle_s": round(seconds),
        }
    _log(figures)
    return figures


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _namespace(number: int) -> str:
    return f"bench-{number}"


def _quantile(ascending: list[float], share: float) -> float:
    return ascending[min(int(len(ascending) * share), len(ascending) - 1)]


def _log(figures: dict[str, Any]) -> None:
    sys.stderr.write(f"{figures}\n")
    sys.stderr.flush()
