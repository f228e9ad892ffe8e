"""Runs the tiers of the tests, each in its own process, and prints the result and the time of each.

`python tests/run.py [TIER ...]`. A skipped test is a failure, so a tier that cannot run here is noticed.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO
from xml.etree import ElementTree as ET

from cluster.images import check_disk_space
from cluster.layout import ClusterError
from cluster.packages import install_kubernetes

TESTS = Path(__file__).parent
FAST = ("unit", "golden", "bad_inputs", "contract")
"""Tiers that need no cluster and little time."""
CPU_BOUND = ("training", "serving", "cli")
"""Tiers whose tests run in parallel, at a lower priority than those of the tiers that mostly wait."""
IO_BOUND = (("api",), ("escalations", "faults", "fuzz"))
"""Tiers that mostly wait for an API server; the two groups run in parallel."""
NEW_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""Prefix that runs a command in a new network namespace, since API servers and pods of all tiers share addresses."""
EXCLUSIVE = ("upgrade", "e2e")
"""Tiers that run alone, because two operators or all programs need the cores."""
IMAGE_TIER = "e2e"
"""The tier that needs the project's images."""
TIERS = (*FAST, *CPU_BOUND, *chain(*IO_BOUND), *EXCLUSIVE)


@dataclass(frozen=True)
class Counts:
    """Test results of a tier."""

    passed: int
    failed: int
    skipped: int
    seconds: float = 0


def main(selected: list[str]) -> int:
    """Run the selected tiers, or all of them; return the exit status."""
    unknown = [tier for tier in selected if not has_tests(tier)]
    if unknown:
        sys.stderr.write(f"unknown tiers: {', '.join(unknown)}. Tiers are {', '.join(filter(has_tests, TIERS))}.\n")
        return 2
    tiers = [tier for tier in TIERS if (tier in selected or not selected) and has_tests(tier)]
    started, build_seconds = time.monotonic(), dict[str, float]()
    try:
        if IMAGE_TIER in tiers:
            check_disk_space()
        if not {*EXCLUSIVE, *chain(*IO_BOUND)}.isdisjoint(tiers):
            # First, since the build takes all cores, and trainings beside it would time out.
            build_seconds["Kubernetes"] = measure(install_kubernetes)
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    counts = run_tiers(tiers, build_seconds)
    print_table(tiers, counts, build_seconds, time.monotonic() - started)
    empty = [tier for tier, count in counts.items() if not count.passed]
    return 1 if empty or any(count.failed or count.skipped for count in counts.values()) else 0


def run_tiers(tiers: list[str], build_seconds: dict[str, float]) -> dict[str, Counts]:
    """Run the tiers: CPU-bound tiers and the build of the images in parallel with I/O-bound tiers."""
    counts = {tier: run_tier(tier) for tier in FAST if tier in tiers}
    with ThreadPoolExecutor(4) as pool:
        groups = [pool.submit(run_group, [tier for tier in group if tier in tiers]) for group in (*IO_BOUND, CPU_BOUND)]
        images: Future[float] | None = pool.submit(measure, build_images) if IMAGE_TIER in tiers else None
        for group in groups:
            counts |= group.result()
        if images:
            build_seconds["images"] = images.result()
    for tier in EXCLUSIVE:
        if tier in tiers:
            counts[tier] = run_tier(tier)
    return counts


def print_table(
    tiers: Iterable[str], counts: dict[str, Counts], build_seconds: dict[str, float], seconds: float
) -> None:
    """Print the results and times of all tiers, the times of the builds, and the totals."""
    for name, spent in build_seconds.items():
        print(f"{name:11} {'':43} {format_time(spent)}")
    for tier in tiers:
        count = counts[tier]
        print(
            f"{tier:11} {count.passed:5} passed {count.failed:5} failed {count.skipped:5} skipped"
            f" {format_time(count.seconds)}"
        )
    print(f"{'all':11} {'':43} {format_time(seconds)}")
    passed, failed, skipped = (
        sum(getattr(count, name) for count in counts.values()) for name in ("passed", "failed", "skipped")
    )
    if skipped:
        print("Skipped tests count as failed.")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")


def format_time(seconds: float) -> str:
    """Return a duration as minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:3}:{rest:02}"


def measure(work: Callable[[], None]) -> float:
    """Call `work` and return the seconds that it took."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def has_tests(tier: str) -> bool:
    """Return whether a tier exists and has tests."""
    return tier in TIERS and any((TESTS / tier).rglob("test_*.py"))


def run_group(tiers: list[str]) -> dict[str, Counts]:
    """Run tiers in parallel with other groups; print the output of each when it has ended."""
    counts = {}
    for tier in tiers:
        prefix = ["nice", "-n", "10"] if tier in CPU_BOUND else NEW_NETWORK
        with tempfile.TemporaryFile("w+") as output:
            counts[tier] = run_tier(tier, prefix, output)
            output.seek(0)
            print(output.read(), flush=True)
    return counts


def build_images() -> None:
    """Build the project's images. Failures are ignored here: the tier that needs the images builds them again."""
    subprocess.run(["nice", "-n", "15", sys.executable, "-m", "cluster", "images"], check=False)


def run_tier(tier: str, prefix: Sequence[str] = (), output: IO[str] | None = None) -> Counts:
    """Run one tier with pytest; a run without results counts as one failure."""
    print(f"--- {tier}", file=output or sys.stdout, flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results.xml"
        command = [
            *prefix,
            sys.executable,
            "-m",
            "pytest",
            "-q",
            str(TESTS / tier),
            f"--junit-xml={results}",
            "-o",
            "junit_family=xunit1",
            "-o",
            "xfail_strict=true",
            "--durations=5",
            "--durations-min=10",
        ]
        environment = dict(os.environ)
        if tier in CPU_BOUND:
            command += ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
            environment["OMP_NUM_THREADS"] = "1"
        status = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
        counts = replace(count_results(results), seconds=time.monotonic() - started)
    return counts if status == 0 or counts.failed else replace(counts, failed=1)


def count_results(results: Path) -> Counts:
    """Count each test in pytest's JUnit XML once, by its worst outcome; a missing file is one failure.

    pytest writes a test twice if its teardown fails too.
    """
    if not results.exists():
        return Counts(0, 1, 0)
    failed, skipped, tests = set(), set(), set()
    for case in ET.parse(results).getroot().iter("testcase"):  # noqa: S314 - pytest wrote it
        test = (case.get("classname"), case.get("name"))
        tests.add(test)
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(test)
        elif case.find("skipped") is not None:
            skipped.add(test)
    return Counts(len(tests - failed - skipped), len(failed), len(skipped - failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
