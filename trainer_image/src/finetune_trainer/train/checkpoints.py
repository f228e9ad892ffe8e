"""Distinguishes complete checkpoints from incomplete ones: a checkpoint is marked after its last byte is written."""

import json
from pathlib import Path

_MARK = "whole.json"


def mark_complete(checkpoint: Path) -> None:
    """Record the names and sizes of all files of a checkpoint in its mark; call it after the last file is written."""
    sizes = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != _MARK
    }
    partial = checkpoint / f"{_MARK}.part"
    partial.write_text(json.dumps(sizes))
    partial.replace(checkpoint / _MARK)


def find_newest_complete(directory: Path) -> Path | None:
    """Return the complete checkpoint with the highest step, or None."""
    checkpoints = [path for path in directory.glob("checkpoint-*") if is_complete(path)]
    return max(checkpoints, key=parse_step, default=None)


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint has a mark, and every file that the mark lists exists with its recorded size."""
    try:
        sizes = json.loads((checkpoint / _MARK).read_text())
        return bool(sizes) and all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def indicates_damage(error: Exception) -> bool:
    """Return whether an exception from loading a checkpoint means that the content of a file is damaged."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    kinds = (SafetensorError, UnpicklingError, EOFError, json.JSONDecodeError)
    # torch.load raises a RuntimeError with one of these texts for a file that is no archive or has a wrong checksum.
    return isinstance(error, kinds) or any(text in str(error) for text in ("PytorchStreamReader", "weights_only"))


def remove_mark(checkpoint: Path) -> None:
    """Remove the mark of a checkpoint, so that no training resumes from it."""
    (checkpoint / _MARK).unlink(missing_ok=True)


def parse_step(checkpoint: Path) -> int:
    """Return the optimizer step in the name of a checkpoint; -1 if the name contains none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1
