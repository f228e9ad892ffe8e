"""FineTuneJobs as the API server returns them, and the current time of the tests."""

from datetime import UTC, datetime
from typing import Any

from unit.pod_reports import DIGEST

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(name: str = "shop", status: dict[str, Any] | None = None, **serving: Any) -> dict[str, Any]:
    spec = {
        "model": {"uri": "pvc://models/base"},
        "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
        "method": {"sft": {}},
        "adapter": {"lora": {}},
    }
    return {
        "metadata": {"name": name, "namespace": "team", "uid": name, "generation": 1},
        "spec": spec | ({"serving": {"server": "shared"} | serving} if serving else {}),
        "status": status or {},
    }


def condition(kind: str, time: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"type": kind, "status": "True", "lastTransitionTime": time, "reason": "Succeeded"}


def evaluated_job(name: str, model_name: str) -> dict[str, Any]:
    artifact = {"uri": f"pvc://out/{name}/adapter/1", "digest": DIGEST, "bytes": 1}
    return job(name, {"artifact": artifact, "conditions": [condition("Evaluated")]}, modelName=model_name)
