"""The metrics of each step as a CSV file, with the columns of OpenAI's fine-tuning results."""

import csv
from pathlib import Path
from typing import Any

_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
# TRL's metrics for each column; the first that is logged counts. The accuracy of preferences precedes that of tokens.
_SOURCES = {
    "train_loss": ("loss",),
    "train_accuracy": ("rewards/accuracies", "accuracy", "mean_token_accuracy", "reward"),
    "valid_loss": ("eval_loss",),
    "valid_mean_token_accuracy": ("eval_rewards/accuracies", "eval_accuracy", "eval_mean_token_accuracy"),
}


def write_history(path: Path, log_history: list[dict[str, Any]]) -> None:
    """Write what a trainer logged, one row per step; a column is empty if its metric was not logged at that step."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in log_history:
        row = rows.setdefault(entry["step"], {"step": entry["step"]})
        for column, names in _SOURCES.items():
            value = next((entry[name] for name in names if name in entry), None)
            if value is not None:
                row[column] = round(float(value), 6)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(row for row in rows.values() if len(row) > 1)
