"""Detects missing, truncated and invalid weight files of a model by their headers alone."""

import json
from pathlib import Path

from finetune_api.conditions import Reason

from finetune_trainer.failures import StageError

_INDEX = "model.safetensors.index.json"


def check_weights(directory: Path, uri: str) -> None:
    """Refuse weights of which a file is missing, truncated or not in safetensors format.

    A directory without any weights passes: the caller knows whether it needs them.

    Raises:
        StageError: with the name of the file.
    """
    from safetensors import SafetensorError, safe_open

    files = {path.name for path in directory.glob("*.safetensors")}
    if not files:
        return
    missing = sorted(_read_index(directory / _INDEX, uri) - files)
    if missing:
        raise _damaged(f"{uri}: {missing[0]} is listed in {_INDEX} but missing")
    for name in sorted(files):
        try:
            with safe_open(directory / name, "numpy"):
                pass
        except SafetensorError as error:
            raise _damaged(f"{uri}: {name} is damaged or incomplete ({error})") from None


def _read_index(path: Path, uri: str) -> set[str]:
    """Return the names of the files that the weights are split into; empty if there is no index."""
    if not path.is_file():
        return set()
    try:
        return set(json.loads(path.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(f"{uri}: {path.name} cannot be read") from None


def _damaged(message: str) -> StageError:
    return StageError(Reason.MODEL_DAMAGED, f"{message}: copy the model again")
