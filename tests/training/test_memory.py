"""The memory of `prepare` does not grow with the number of rows, so the data may be larger than the memory."""

import json
from pathlib import Path

from finetune_trainer.prepare.stage import prepare
from workspace import make_workspace

MIB = 1 << 20


def test_memory_stays_the_same_for_more_rows(model: Path, tmp_path: Path) -> None:
    # The first run allocates memory that the process keeps.
    measure_peak(tmp_path / "first", model, 5_000)
    few, many = (measure_peak(tmp_path / str(rows), model, rows) for rows in (5_000, 25_000))
    assert many - few < 12 * MIB


def measure_peak(directory: Path, model: Path, rows: int) -> int:
    """Prepare a number of rows in this process; return the peak of its memory in bytes."""
    workspace = make_workspace(directory, model, [])
    with (directory / "claims" / "data" / "train.jsonl").open("w") as file:
        # One row at a time: memory that a list of them had freed would hide the memory of `prepare`.
        for number in range(rows):
            file.write(json.dumps({"prompt": f"what does {number} cost?", "completion": f"{number} euros"}) + "\n")
    # Resets the peak (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    prepare(workspace.job, workspace.directory, None, "USD")
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024
