"""Runs the tiers of the tests, each in a process of its own, and says how each ended and how long it took.

`python tests/run.py [TIER ...]`. A skipped test is a failure: a tier that cannot run here says so loudly.
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
PURE = ("unit", "golden", "bad_inputs", "contract")
"""Tiers that need neither a cluster nor much time."""
COMPUTING = ("training", "serving")
"""Tiers that keep the cores busy: their tests run side by side, at a lower priority than those that mostly wait."""
WAITING = (("api",), ("escalations", "faults", "fuzz"))
"""Tiers that mostly wait for an API server; the two groups run side by side."""
OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""Begins a command with a loopback interface of its own: API servers and played pods have the same addresses."""
ALONE = ("upgrade", "e2e")
"""Tiers in which operators of two releases, or all programs, need the cores for themselves."""
NODE = "e2e"
"""The one of them that needs the project's images."""
TIERS = (*PURE, *COMPUTING, *chain(*WAITING), *ALONE)


@dataclass(frozen=True)
class Counts:
    """How the tests of a tier ended."""

    passed: int
    failed: int
    skipped: int
    seconds: float = 0


def main(wanted: list[str]) -> int:
    """Run the tiers asked for, or all; return the exit status."""
    unknown = [tier for tier in wanted if not has_tests(tier)]
    if unknown:
        sys.stderr.write(
            f"there are no tests in {', '.join(unknown)}; there are {', '.join(filter(has_tests, TIERS))}\n"
        )
        return 2
    tiers = [tier for tier in TIERS if (tier in wanted or not wanted) and has_tests(tier)]
    began, made = time.monotonic(), dict[str, float]()
    try:
        if NODE in tiers:
            check_disk_space()
        if not {*ALONE, *chain(*WAITING)}.isdisjoint(tiers):
            # First, since to build it takes all cores, and trainings would wait in vain.
            made["Kubernetes"] = measure(install_kubernetes)
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    counts = run_tiers(tiers, made)
    print_table(tiers, counts, made, time.monotonic() - began)
    empty = [tier for tier, count in counts.items() if not count.passed]
    return 1 if empty or any(count.failed or count.skipped for count in counts.values()) else 0


def run_tiers(tiers: list[str], made: dict[str, float]) -> dict[str, Counts]:
    """Run the tiers; those that compute, and the images' build, beside those that wait."""
    counts = {tier: run_tier(tier) for tier in PURE if tier in tiers}
    with ThreadPoolExecutor(4) as pool:
        groups = [pool.submit(run_group, [one for one in group if one in tiers]) for group in (*WAITING, COMPUTING)]
        images: Future[float] | None = pool.submit(measure, build_images) if NODE in tiers else None
        for group in groups:
            counts |= group.result()
        if images:
            made["images"] = images.result()
    for tier in ALONE:
        if tier in tiers:
            counts[tier] = run_tier(tier)
    return counts


def print_table(tiers: Iterable[str], counts: dict[str, Counts], made: dict[str, float], seconds: float) -> None:
    """Print how each tier ended, how long it and what was built took, and the sum of all."""
    for what, spent in made.items():
        print(f"{what:11} {'':43} {format_time(spent)}")
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
        print("skipped tests count as failed here: they prove nothing")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")


def format_time(seconds: float) -> str:
    """Return minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:3}:{rest:02}"


def measure(work: Callable[[], None]) -> float:
    """Do something; return the seconds that it took."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def has_tests(tier: str) -> bool:
    """Tell whether a tier has any test."""
    return tier in TIERS and any((TESTS / tier).rglob("test_*.py"))


def run_group(tiers: list[str]) -> dict[str, Counts]:
    """Run tiers beside others, and show what each said when it has ended."""
    counts = {}
    for tier in tiers:
        before = ["nice", "-n", "10"] if tier in COMPUTING else OWN_NETWORK
        with tempfile.TemporaryFile("w+") as said:
            counts[tier] = run_tier(tier, before, said)
            said.seek(0)
            print(said.read(), flush=True)
    return counts


def build_images() -> None:
    """Build the project's images; where this fails, the tier that wants them tries again and tells."""
    subprocess.run(["nice", "-n", "15", sys.executable, "-m", "cluster", "images"], check=False)


def run_tier(tier: str, before: Sequence[str] = (), output: IO[str] | None = None) -> Counts:
    """Run one tier with pytest; a run that ends without results counts as one failure."""
    print(f"--- {tier}", file=output or sys.stdout, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results.xml"
        command = [
            *before,
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
        if tier in COMPUTING:
            command += ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
            environment["OMP_NUM_THREADS"] = "1"
        status = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
        counts = replace(count_results(results), seconds=time.monotonic() - began)
    return counts if status == 0 or counts.failed else replace(counts, failed=1)


def count_results(results: Path) -> Counts:
    """Count each test of pytest's results once, by its worst outcome; a file that is not there is one failure.

    One that fails in its teardown too is written twice.
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
