"""Tells whole checkpoints from broken ones: only one that was marked after its last byte is resumed from."""

import json
from pathlib import Path

_MARK = "whole.json"


def mark_whole(checkpoint: Path) -> None:
    """Record the names and sizes of a checkpoint's files, once all of them are written."""
    sizes = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != _MARK
    }
    partial = checkpoint / f"{_MARK}.part"
    partial.write_text(json.dumps(sizes))
    partial.replace(checkpoint / _MARK)


def newest_whole(directory: Path) -> Path | None:
    """Return the whole checkpoint with the highest step, or None."""
    found = [(step_of(path), path) for path in directory.glob("checkpoint-*") if is_whole(path)]
    return max(found)[1] if found else None


def is_whole(checkpoint: Path) -> bool:
    """Tell whether every file that the mark names is there with its size."""
    try:
        sizes = json.loads((checkpoint / _MARK).read_text())
        return bool(sizes) and all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def is_damage(error: Exception) -> bool:
    """Tell whether an exception says that a file of a checkpoint is not what was written."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    kinds = (SafetensorError, UnpicklingError, EOFError, json.JSONDecodeError)
    # What torch.load says of a file that is no archive of its own, or one with wrong sums.
    return isinstance(error, kinds) or any(sign in str(error) for sign in ("PytorchStreamReader", "weights_only"))


def forget(checkpoint: Path) -> None:
    """Take a checkpoint's mark away, so that nothing is resumed from it again."""
    (checkpoint / _MARK).unlink(missing_ok=True)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step of a checkpoint by its name; -1 where it has none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1
