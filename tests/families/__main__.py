"""`python -m families [MODEL_TYPE...]`: measures families of models, and writes `docs/models.md` if it measured all.

The figures of each go to standard error, a line of JSON that sums them up to standard output.

Each family runs in a process of its own, one after the other, since only the end of a process frees vLLM's memory.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from families.catalog import FAMILIES
from families.report import MARK, find_problems, format_table

_PAGE = Path(__file__).parents[2] / "docs/models.md"
_SECONDS = 900


def measure(model_type: str) -> dict[str, Any]:
    """Measure a family in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "families.measure", model_type, directory]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return {"family": model_type, "error": f"it took more than {_SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"family": model_type, "error": f"the process ended with {done.returncode}: {done.stderr[-300:]}"}
    figures: dict[str, Any] = json.loads(lines[-1])
    return figures


def main(names: list[str]) -> int:
    """Measure the families, print their figures, and return the exit status."""
    measured = {}
    for name in names or FAMILIES:
        measured[name] = measure(name)
        print(json.dumps(measured[name]), file=sys.stderr, flush=True)
    problems = [problem for name, figures in measured.items() for problem in find_problems(FAMILIES[name], figures)]
    if not names:
        text, mark, _ = _PAGE.read_text().partition(MARK)
        _PAGE.write_text(text + mark + "\n" + format_table(measured))
    print(*problems, sep="\n", file=sys.stderr)
    compared = sum("base" in figures for figures in measured.values())
    print(json.dumps({"families": len(measured), "compared": compared, "problems": len(problems)}))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
