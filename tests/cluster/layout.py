"""Where the embedded Kubernetes keeps its things, the addresses that it uses, how it speaks, and what is built anew."""

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
"""Address of the node and of the API server, on an interface of the cluster's own."""
NODE_INTERFACE = "finetune-node"
BRIDGE = "finetune-pods"
POD_NETWORK = "10.195.128.0/18"
SERVICE_NETWORK = "10.195.64.0/18"
DNS_ADDRESS = "10.195.64.10"
NODE_NAME = "node"
API_PORT = 16443

_STARTED = time.monotonic()


class ClusterError(Exception):
    """Something that keeps the cluster from running, said so that a person can act on it."""


def log_progress(message: str) -> None:
    """Say how far the work is, on standard error."""
    sys.stderr.write(f"[{time.monotonic() - _STARTED:4.0f}s] {message}\n")
    sys.stderr.flush()


def digest_inputs(files: Iterable[Path], more: str) -> str:
    """Return a digest of files' contents, and of whatever else something is built from."""
    total = hashlib.sha256(more.encode())
    for path in sorted(files):
        total.update(f"{path.relative_to(ROOT)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
