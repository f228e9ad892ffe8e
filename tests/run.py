"""Runs the tiers of the tests, each in a process of its own, and says how many tests ran in each.

`python tests/run.py [TIER ...]`. A skipped test is a failure: a tier that cannot run here says so loudly.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree import ElementTree as ET

from cluster.images import check_room
from cluster.layout import ClusterError
from cluster.packages import install_kubernetes

TESTS = Path(__file__).parent
TIERS = (
    "unit",
    "golden",
    "bad_inputs",
    "contract",
    "training",
    "serving",
    "api",
    "escalations",
    "faults",
    "fuzz",
    "upgrade",
    "e2e",
)
PARALLEL = ("training", "serving")
"""Tiers whose tests run side by side, a core for each; those of the others share one cluster, or end at once."""
BESIDE = "training"
"""The tier that runs on what the others, which mostly wait, leave of the cores."""
ALONE = "e2e"
"""The tier that needs all cores for itself, and the project's images."""


@dataclass(frozen=True)
class Counts:
    """How the tests of a tier ended."""

    passed: int
    failed: int
    skipped: int


def main(wanted: list[str]) -> int:
    """Run the tiers asked for, or all; return the exit status."""
    unknown = [tier for tier in wanted if not has_tests(tier)]
    if unknown:
        sys.stderr.write(
            f"there are no tests in {', '.join(unknown)}; there are {', '.join(filter(has_tests, TIERS))}\n"
        )
        return 2
    tiers = [tier for tier in TIERS if (tier in wanted or not wanted) and has_tests(tier)]
    try:
        set_up(tiers)
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    counts: dict[str, Counts] = {}
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(run_beside, images=ALONE in tiers) if BESIDE in tiers else None
        for tier in tiers:
            if tier == ALONE and beside:
                beside.result()
            if tier != BESIDE:
                print(f"--- {tier}", flush=True)
                counts[tier] = run_tier(tier)
        if beside:
            counts[BESIDE] = beside.result()
    for tier in tiers:
        count = counts[tier]
        print(f"{tier:11} {count.passed:5} passed {count.failed:5} failed {count.skipped:5} skipped")
    passed, failed, skipped = (
        sum(getattr(count, name) for count in counts.values()) for name in Counts.__annotations__
    )
    if skipped:
        print("skipped tests count as failed here: they prove nothing")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    empty = [tier for tier, count in counts.items() if not count.passed]
    return 1 if failed or skipped or empty else 0


def set_up(tiers: list[str]) -> None:
    """Do first what would stop the tiers later, or take the cores from them."""
    if ALONE in tiers:
        check_room()
    if BESIDE in tiers and "api" in tiers:
        # To build it takes all cores for ten minutes, and trainings would wait in vain.
        install_kubernetes()


def has_tests(tier: str) -> bool:
    """Tell whether a tier has any test."""
    return tier in TIERS and any((TESTS / tier).rglob("test_*.py"))


def run_beside(*, images: bool) -> Counts:
    """Run a tier while others run, and show what it said when it has ended; then build the images, where asked for."""
    nice = ["nice", "-n", "5"]
    with tempfile.TemporaryFile("w+") as said:
        counts = run_tier(BESIDE, nice, said)
        said.seek(0)
        print(f"--- {BESIDE}, beside the others\n{said.read()}", flush=True)
    if images:
        # Where this fails, the tier that wants them tries again and tells.
        subprocess.run([*nice, sys.executable, "-m", "cluster", "images"], check=False)
    return counts


def run_tier(tier: str, before: Sequence[str] = (), output: IO[str] | None = None) -> Counts:
    """Run one tier with pytest; a run that ends without results counts as one failure."""
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
        if tier in PARALLEL:
            command += ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
            environment["OMP_NUM_THREADS"] = "1"
        status = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
        if not results.exists():
            return Counts(0, 1, 0)
        counts = count(ET.parse(results).getroot())  # noqa: S314 - pytest wrote it
    return counts if status == 0 or counts.failed else Counts(counts.passed, 1, counts.skipped)


def count(results: ET.Element) -> Counts:
    """Count each test once, by its worst outcome: one that fails in its teardown too is written twice."""
    failed, skipped, tests = set(), set(), set()
    for case in results.iter("testcase"):
        test = (case.get("classname"), case.get("name"))
        tests.add(test)
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(test)
        elif case.find("skipped") is not None:
            skipped.add(test)
    return Counts(len(tests - failed - skipped), len(failed), len(skipped - failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
