"""Directories and addresses of the embedded Kubernetes, its progress log, and digests of build inputs."""

import hashlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
BIN = CACHE / "bin"
STATE = CACHE / "cluster"
IMAGES = CACHE / "images"

NODE_ADDRESS = "10.195.0.1"
"""Address of the node and of the API server, on the interface `NODE_INTERFACE`."""
NODE_INTERFACE = "finetune-node"
BRIDGE = "finetune-pods"
POD_NETWORK = "10.195.128.0/18"
SERVICE_NETWORK = "10.195.64.0/18"
DNS_ADDRESS = "10.195.64.10"
NODE_NAME = "node"
API_PORT = 16443

_STARTED = time.monotonic()


class ClusterError(Exception):
    """The cluster cannot run; the message says why and what to do."""


def log_progress(message: str) -> None:
    """Write a line with the seconds since the start to standard error."""
    sys.stderr.write(f"[{time.monotonic() - _STARTED:4.0f}s] {message}\n")
    sys.stderr.flush()


def digest_inputs(files: Iterable[Path], extra: str) -> str:
    """Return the SHA-256 of the paths and contents of files and of `extra`, the other inputs of a build."""
    total = hashlib.sha256(extra.encode())
    for path in sorted(files):
        total.update(f"{path.relative_to(ROOT)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
