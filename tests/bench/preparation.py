"""Throughput and peak memory of the stage prepare with a million short rows."""

import json
import resource
import time
from pathlib import Path
from typing import Any

from model.tiny import make_tiny_model
from workspace import make_workspace


def measure_preparation(root: Path, count: int) -> dict[str, Any]:
    """Return the rows a second, and the peak memory of the process in MiB."""
    root.mkdir()
    workspace = make_workspace(root / "job", make_tiny_model(root / "model"), [])
    with (root / "job" / "claims" / "data" / "train.jsonl").open("w") as file:
        for number in range(count):
            row = {"prompt": f"what does thing {number} cost?", "completion": f"{number} euros"}
            file.write(json.dumps(row) + "\n")
    started = time.monotonic()
    status = workspace.start("prepare").wait()
    seconds = time.monotonic() - started
    if status != 0:
        raise SystemExit(workspace.log[-3000:])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"prepare_rows": count, "prepare_rows_per_s": round(count / seconds), "prepare_peak_mib": peak >> 10}
