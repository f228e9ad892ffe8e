"""`python -m fuzz`: the fuzz tier with the given counts; prints the results as one line of JSON.

The output of pytest, with each problem and how to repeat it, goes to standard error.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Run the tests; return their exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000, help="number of worlds to generate and plan")
    parser.add_argument("--transitions", type=int, default=1_500, help="number of mutations of live objects")
    parser.add_argument("--reports", type=int, default=10_000, help="number of hostile reports")
    parser.add_argument("--seed", type=int, default=1, help="seed of the generated inputs")
    parser.add_argument("--only", default="", help="run only mutations of live objects whose label contains this")
    arguments = parser.parse_args()
    options = [f"--{name}={value}" for name, value in vars(arguments).items()]
    if arguments.only:
        options += ["-k", "live"]
    with tempfile.TemporaryDirectory() as directory:
        counts = Path(directory) / "counts.json"
        command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).parent), f"--counts={counts}", *options]
        status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        if counts.exists():
            sys.stdout.write(counts.read_text())
    return status


if __name__ == "__main__":
    sys.exit(main())
