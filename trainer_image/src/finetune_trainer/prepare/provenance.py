"""Records which files were read: names, sizes, digests, and the commit on the hub."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from finetune_api.contract.mounts import path_of
from finetune_api.modelserver import Model
from finetune_pod.modelfiles import SMALL_FILES

_COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})/")


def describe_files(uri: str, files: list[Path]) -> dict[str, Any]:
    """Return the URI, the commit if the hub's client fetched the files, and name, bytes and SHA-256 of each file."""
    root = Path(os.path.commonpath([file.parent for file in files]))
    commit = _COMMIT.search(files[0].as_posix())
    return {
        "uri": uri,
        **({"commit": commit[1]} if commit else {}),
        "files": [
            {
                "name": file.relative_to(root).as_posix(),
                "bytes": file.stat().st_size,
                "sha256": _digest_file(file),
            }
            for file in files
        ],
    }


def describe_model(model: Model, directory: Path, root: Path) -> list[dict[str, Any]]:
    """Return the same for a model's configuration and tokenizer, and for the chat template of `model.chatTemplate`.

    The weights are not read during prepare.

    Args:
        model: the model.
        directory: the directory of the model.
        root: the directory below which ConfigMaps are mounted.
    """
    files = sorted({path for pattern in SMALL_FILES for path in directory.glob(pattern)})
    template = model.chat_template
    return [
        describe_files(model.uri, files),
        *([describe_files(template, [path_of(template, root)])] if template else []),
    ]


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
