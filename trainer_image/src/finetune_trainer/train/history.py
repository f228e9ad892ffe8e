"""The figures of each step, as OpenAI's fine-tuning gives them: one CSV file with its columns."""

import csv
from pathlib import Path
from typing import Any

_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
# TRL's names; the accuracy of preferences says more than that of their tokens.
_SOURCES = {
    "train_loss": ("loss",),
    "train_accuracy": ("rewards/accuracies", "accuracy", "mean_token_accuracy", "reward"),
    "valid_loss": ("eval_loss",),
    "valid_mean_token_accuracy": ("eval_rewards/accuracies", "eval_accuracy", "eval_mean_token_accuracy"),
}


def write_history(path: Path, logged: list[dict[str, Any]]) -> None:
    """Write what a trainer logged, a row for each step; a column without a figure is empty."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in logged:
        row = rows.setdefault(entry["step"], {"step": entry["step"]})
        for column, names in _SOURCES.items():
            found = next((entry[name] for name in names if name in entry), None)
            if found is not None:
                row[column] = round(float(found), 6)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(row for row in rows.values() if len(row) > 1)
