"""`python -m fuzz`: the fuzz tier with as much as is asked for; its counts as one line of JSON.

What pytest says goes to standard error; a problem is there with how to repeat it.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Run it; return the exit status of the tests."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000, help="worlds that are drawn and planned for")
    parser.add_argument("--transitions", type=int, default=1_500, help="mutations of live objects")
    parser.add_argument("--reports", type=int, default=10_000, help="hostile reports")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn; the same seed draws the same")
    parser.add_argument("--only", default="", help="only mutations of live objects whose label holds this")
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
