"""The data may be larger than the memory: what `prepare` takes does not grow with the rows."""

import json
from pathlib import Path

from finetune_trainer.prepare.stage import prepare
from workspace import make_workspace

MIB = 1 << 20


def test_memory_stays_the_same_for_more_rows(model: Path, tmp_path: Path) -> None:
    # What the first run leaves behind in this process the second one finds.
    peak_of(tmp_path / "first", model, 5_000)
    few, many = (peak_of(tmp_path / str(rows), model, rows) for rows in (5_000, 25_000))
    assert many - few < 12 * MIB


def peak_of(directory: Path, model: Path, rows: int) -> int:
    """Prepare so many rows in this process; return the most memory that it held meanwhile, in bytes."""
    workspace = make_workspace(directory, model, [])
    with (directory / "claims" / "data" / "train.jsonl").open("w") as file:
        # One by one: what a list of them held and gave back would hide what `prepare` takes.
        for number in range(rows):
            file.write(json.dumps({"prompt": f"what does {number} cost?", "completion": f"{number} euros"}) + "\n")
    # Linux: the peak begins anew.
    Path("/proc/self/clear_refs").write_text("5")
    prepare(workspace.job, workspace.directory, None, "USD")
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024
