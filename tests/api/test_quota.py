"""The quota of a namespace on a real API server: active jobs, GPUs, and the queue for both."""

from typing import Any

from api.conftest import Operator, apply, finetunejob, get_all, status_of
from api.lifecycle import hold, patch, stage_jobs, wait_for_reason
from api.player import Player, succeed
from cluster.control_plane import Cluster
from waiting import wait_for


def wait_for_training(cluster: Cluster, namespace: str, names: set[str]) -> None:
    """Wait until the given jobs train and no other."""

    def training() -> set[str]:
        jobs = stage_jobs(cluster, namespace, "Train")
        return {job["metadata"]["labels"]["finetune.dev/job"] for job in jobs if job["status"].get("active")}

    wait_for(lambda: training() == names, lambda: f"{names} to train; now {training()} train")


def test_gpus_are_given_in_queue_order(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    released: set[str] = set()

    def script(pod: dict[str, Any]) -> tuple[int, str] | None:
        labels = pod["metadata"]["labels"]
        is_held = labels["finetune.dev/stage"] == "Train" and labels["finetune.dev/job"] not in released
        return None if is_held else succeed(pod)

    def add(name: str, gpus: int, priority: int = 0) -> None:
        resources = {"resources": {"gpus": gpus}}
        apply(cluster, finetunejob(name, namespace, compute=resources, priority=priority))

    player.play(namespace, script)
    add("small", 1)
    wait_for_training(cluster, namespace, {"small"})
    add("large", 2)
    wait_for_reason(cluster, namespace, "large", "Ready", "False", "LimitReached")
    add("later", 1)
    wait_for_reason(cluster, namespace, "later", "Ready", "False", "LimitReached")
    add("urgent", 2, priority=5)
    wait_for_reason(cluster, namespace, "urgent", "Ready", "False", "LimitReached")
    add("huge", 3)
    wait_for_reason(cluster, namespace, "huge", "Ready", "False", "LimitExceeded")
    ready = {
        condition["type"]: condition["message"] for condition in status_of(cluster, namespace, "later")["conditions"]
    }["Ready"]
    assert (
        ready
        == f"namespace {namespace} uses 1 of 2 GPUs, this stage requests 1; FineTuneJob large is ahead in the queue"
    )
    for finished, next_job in (("small", "urgent"), ("urgent", "large"), ("large", "later")):
        released.add(finished)
        wait_for_training(cluster, namespace, {next_job})
        wait_for_reason(cluster, namespace, finished, "Trained", "True", "Succeeded")
        if finished == "small":
            # Its evaluation queues for GPUs too.
            wait_for_reason(cluster, namespace, finished, "Ready", "False", "LimitReached")
    released.add("later")
    for name in ("small", "urgent", "large", "later"):
        wait_for_reason(cluster, namespace, name, "Ready", "True", "Completed")
    assert "waitingFor" not in status_of(cluster, namespace, "later")
    assert "startTime" not in status_of(cluster, namespace, "huge")


def test_a_suspended_job_frees_its_quota(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    released: list[bool] = []
    player.play(namespace, hold("Train", released))
    apply(cluster, finetunejob("first", namespace))
    wait_for_training(cluster, namespace, {"first"})
    apply(cluster, finetunejob("second", namespace))
    wait_for_reason(cluster, namespace, "second", "Ready", "False", "LimitReached")
    assert "startTime" not in status_of(cluster, namespace, "second")
    patch(cluster, namespace, "first", suspend=True)
    wait_for_training(cluster, namespace, {"second"})
    patch(cluster, namespace, "first", suspend=False)
    wait_for_reason(cluster, namespace, "first", "Ready", "False", "LimitReached")
    assert status_of(cluster, namespace, "first")["waitingFor"] == {"jobs": 1, "gpus": 0}
    released.append(True)
    for name in ("second", "first"):
        wait_for_reason(cluster, namespace, name, "Ready", "True", "Completed")


def test_six_jobs_at_once_run_two_at_a_time(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    released: list[bool] = []
    player.play(namespace, hold("Prepare", released))
    names = [f"job-{number}" for number in range(6)]
    jobs = {"apiVersion": "v1", "kind": "List", "items": [finetunejob(name, namespace) for name in names]}
    apply(cluster, jobs)

    def reasons() -> list[str]:
        return sorted(job.get("status", {}).get("reason", "") for job in get_all(cluster, "ftj", namespace))

    wait_for(lambda: reasons() == ["LimitReached"] * 4 + ["Preparing"] * 2, lambda: str(reasons()))
    assert len(stage_jobs(cluster, namespace, "Prepare")) == 2
    released.append(True)
    for name in names:
        wait_for_reason(cluster, namespace, name, "Ready", "True", "Completed")
