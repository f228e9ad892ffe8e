"""Steps of the tests that follow a job's lifecycle."""

import json
from typing import Any

from api.conftest import condition_of, get_all, status_of
from api.player import Script, succeed
from cluster.control_plane import Cluster
from waiting import wait_for


def wait_for_reason(cluster: Cluster, namespace: str, name: str, kind: str, status: str, reason: str) -> None:
    """Wait until a condition of a job has a status and a reason."""
    wait_for(
        lambda: condition_of(status_of(cluster, namespace, name), kind) == (status, reason),
        lambda: f"{kind} of {name}: {status_of(cluster, namespace, name)}",
    )


def patch(cluster: Cluster, namespace: str, name: str, **spec: Any) -> None:
    """Change fields of a job as `kubectl patch` does."""
    cluster.run_kubectl("patch", "ftj", name, "-n", namespace, "--type=merge", "-p", json.dumps({"spec": spec}))


def stage_jobs(cluster: Cluster, namespace: str, stage: str) -> list[dict[str, Any]]:
    """Return the Jobs of a stage."""
    jobs = get_all(cluster, "jobs", namespace)
    return [job for job in jobs if job["metadata"]["labels"]["finetune.dev/stage"] == stage]


def hold(stage: str, released: list[bool]) -> Script:
    """Return a script that keeps a stage running while `released` is empty; all other stages succeed."""

    def script(pod: dict[str, Any]) -> tuple[int, str] | None:
        is_held = pod["metadata"]["labels"]["finetune.dev/stage"] == stage and not released
        return None if is_held else succeed(pod)

    return script
