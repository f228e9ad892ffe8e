"""`python -m soak [PART ...]`: repeats the tests of `make test` whose outcome depends on chance.

Prints a line of JSON for each part: whether it passed, its minutes and its figures. The output of the parts goes to
standard error. docs/proof.md explains the parts and lists their latest figures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from run import count_results

_TESTS = Path(__file__).parents[1]
_BENCH_SIZES = ("5000", "10000", "20000")


def _pytest(tier: str, name: str, *options: str) -> list[str]:
    """Return the command that runs one test."""
    return ["pytest", "-q", str(_TESTS / tier), "-k", name, *options]


PARTS = {
    "kills": _pytest("training", "test_a_killed_training_repeats", "--kills=10"),
    "requests": _pytest("e2e", "test_every_request_is_answered", "--requests=10000"),
    "escalations": ["escalations"],
    "fuzz": ["fuzz"],
    "faults": ["faults"],
    "families": ["families"],
    "growth": ["bench", "operator", "--sizes", *_BENCH_SIZES],
}
"""The arguments of `python -m` for each part."""


def main() -> int:
    """Run the selected parts, or all of them; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; default: all")
    selected = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in selected if part not in PARTS]:
        parser.error(f"unknown parts: {', '.join(unknown)}. Parts are {', '.join(PARTS)}.")
    lines = [_run(part) for part in PARTS if part in selected]
    return 0 if all(line["passed"] for line in lines) else 1


def _run(part: str) -> dict[str, Any]:
    """Run a part; print and return its line."""
    command, started = PARTS[part], time.monotonic()
    if command[0] == "pytest":
        passed, figures = _run_test(command)
    else:
        done = subprocess.run([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, check=False)
        passed, figures = done.returncode == 0, _read_figures(done.stdout)
    line = {"part": part, "passed": passed, "minutes": round((time.monotonic() - started) / 60, 1), **figures}
    print(json.dumps(line), flush=True)
    return line


def _run_test(command: list[str]) -> tuple[bool, dict[str, Any]]:
    """Run a test with pytest; return whether it passed and was not skipped, and its figures."""
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results.xml"
        full_command = [sys.executable, "-m", *command, f"--junit-xml={results}", "-o", "junit_family=xunit1"]
        status = subprocess.run(full_command, stdout=sys.stderr, check=False).returncode
        counts = count_results(results)
    return status == 0 and counts.passed > 0 and not counts.skipped, {"tests": counts.passed}


def _read_figures(output: str) -> dict[str, Any]:
    """Parse the last line of a program's output as its figures; empty if there is no output."""
    lines = output.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


if __name__ == "__main__":
    sys.exit(main())
