"""SHA-256 digests of JSON values and of directories, equal in every program."""

import hashlib
import json
from pathlib import Path
from typing import Any


def digest_value(value: Any) -> str:
    """Return the SHA-256 of a JSON value as 64 hexadecimal digits. The order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_directory(directory: Path) -> str:
    """Return `sha256:` and the digest of the relative names, sizes and contents of all files below a directory.

    Raises:
        ValueError: a file is a symbolic link, whose target can change without changing the digest.
    """
    total = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if not path.is_dir() or path.is_symlink()):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise ValueError(f"{name} is a symbolic link")
        total.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return f"sha256:{total.hexdigest()}"
