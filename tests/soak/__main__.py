"""`python -m soak [PART ...]`: what `make test` proves once or in part, as often and as long as it takes to trust it.

Prints a line of JSON for each part: whether it passed, how long it took, and its figures. What a part says meanwhile
goes to standard error. docs/proof.md says what each proves, and keeps the last figures.
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
    "kills": _pytest("training", "test_a_training_killed_again_and_again", "--kills=10"),
    "requests": _pytest("e2e", "test_every_request_is_answered", "--requests=10000"),
    "escalations": ["escalations"],
    "fuzz": ["fuzz"],
    "faults": ["faults"],
    "growth": ["bench", "operator", "--sizes", *_BENCH_SIZES],
}
"""What `python -m` runs for each part."""


def main() -> int:
    """Run the parts asked for, or all; return 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    wanted = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    lines = [_run(part) for part in PARTS if part in wanted]
    return 0 if all(line["passed"] for line in lines) else 1


def _run(part: str) -> dict[str, Any]:
    """Run a part and print its line."""
    command, began = PARTS[part], time.monotonic()
    if command[0] == "pytest":
        passed, figures = _run_test(command)
    else:
        done = subprocess.run([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, check=False)
        passed, figures = done.returncode == 0, _read_figures(done.stdout)
    line = {"part": part, "passed": passed, "minutes": round((time.monotonic() - began) / 60, 1), **figures}
    print(json.dumps(line), flush=True)
    return line


def _run_test(command: list[str]) -> tuple[bool, dict[str, Any]]:
    """Run a test with pytest; it passed where it was not skipped and nothing else failed."""
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results.xml"
        whole = [sys.executable, "-m", *command, f"--junit-xml={results}", "-o", "junit_family=xunit1"]
        status = subprocess.run(whole, stdout=sys.stderr, check=False).returncode
        counts = count_results(results)
    return status == 0 and counts.passed > 0 and not counts.skipped, {"tests": counts.passed}


def _read_figures(output: str) -> dict[str, Any]:
    """Return the last line of a program's output as its figures; none where it ended before it had any."""
    lines = output.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


if __name__ == "__main__":
    sys.exit(main())
