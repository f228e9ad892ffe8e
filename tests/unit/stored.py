"""FineTuneJobs and the Jobs of their stages, as the cache receives them."""

from typing import Any

from finetune_operator.kube.kinds import Key

KEY = Key("FineTuneJob", "team", "a")


def stored_job(name: str, version: int = 1, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": str(version)}
    metadata["creationTimestamp"] = f"2026-01-01T00:00:0{len(name)}Z"
    kind = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob"}
    return kind | {"metadata": metadata, "spec": {}, "status": status}


def stored_stage(name: str, owner: str, gpus: int = 0, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": "1"}
    containers = [{"resources": {"limits": {"gpu": str(gpus)}}}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata | {"labels": {"finetune.dev/job": owner}},
        "spec": {"parallelism": 2, "template": {"spec": {"containers": containers}}},
        "status": status,
    }


def served_job(name: str = "a", version: int = 1, uid: str = "u", **serving: str) -> dict[str, Any]:
    spec = {"serving": serving} if serving else {}
    metadata = {"name": name, "namespace": "team", "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": metadata, "spec": spec}


def true(*kinds: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": "True"} for kind in kinds]
