"""Valid reports of pods."""

from typing import Any

DIGEST = "sha256:" + "a" * 64
TRAINED: dict[str, Any] = {
    "outcome": "Succeeded",
    "reason": "Succeeded",
    "training": {"steps": 5, "loss": 1.0, "seconds": 2.0},
    "artifact": {"uri": "pvc://out/job-0123/adapter/1", "digest": DIGEST, "bytes": 1},
}
LOADED = {"modelName": "bot", "job": "job", "digest": DIGEST, "state": "Loaded"}
