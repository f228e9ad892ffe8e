"""A job's lifecycle on a real API server: suspension, Kueue, deadlines, expiry."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from api.account import make_namespace
from api.conftest import Operator, apply, condition_of, finetunejob, get_all, modelserver, status_of
from api.lifecycle import hold, patch, stage_jobs, wait_for_reason
from api.player import Player, succeed
from cluster.control_plane import Cluster
from waiting import wait_for

OWN = {"modelName": "bot", "template": {}}
HOLD = "finetune.dev/held-by-a-test"


def running_pods(cluster: Cluster, namespace: str, stage: str) -> list[str]:
    """Return the names of a stage's running pods."""
    return [
        pod["metadata"]["name"]
        for pod in get_all(cluster, "pods", namespace)
        if pod["metadata"]["labels"].get("finetune.dev/stage") == stage and pod["status"].get("phase") == "Running"
    ]


@contextmanager
def held_by_finalizer(cluster: Cluster, namespace: str, pod: str) -> Iterator[None]:
    """Keep a deleted pod terminating, like one that still writes its checkpoint."""

    def set_finalizers(names: list[str]) -> None:
        change = json.dumps({"metadata": {"finalizers": names}})
        cluster.run_kubectl("patch", "pod", pod, "-n", namespace, "--type=merge", "-p", change)

    manifest = json.loads(cluster.run_kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
    set_finalizers([*manifest["metadata"].get("finalizers", []), HOLD])
    yield
    manifest = json.loads(cluster.run_kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
    set_finalizers([name for name in manifest["metadata"]["finalizers"] if name != HOLD])


@pytest.mark.parametrize("stage", ["Prepare", "Train", "Evaluate"])
def test_a_suspended_stage_continues_without_a_retry(
    cluster: Cluster, operator: Operator, player: Player, stage: str
) -> None:
    namespace = f"stopped-in-{stage.lower()}"
    make_namespace(cluster, namespace)
    released: list[bool] = []
    player.play(namespace, hold(stage, released))
    apply(cluster, finetunejob("job", namespace, retries=0))
    wait_for(lambda: bool(running_pods(cluster, namespace, stage)), f"a pod that runs {stage}")
    patch(cluster, namespace, "job", suspend=True)
    wait_for_reason(cluster, namespace, "job", "Suspended", "True", "Suspended")
    assert condition_of(status_of(cluster, namespace, "job"), "Ready") == ("False", "Suspended")
    assert not stage_jobs(cluster, namespace, stage)
    released.append(True)
    patch(cluster, namespace, "job", suspend=False)
    wait_for_reason(cluster, namespace, "job", "Ready", "True", "Completed")
    status = status_of(cluster, namespace, "job")
    assert condition_of(status, "Suspended") == ("False", "Resumed")
    attempts = {"prepare": 1, "train": 1, "evaluate": 1, "export": 0, "disruptions": 0} | {stage.lower(): 2}
    assert status["attempts"] == attempts


def test_a_resumed_training_waits_for_the_pods_of_the_first(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    released: list[bool] = []
    player.play(namespace, hold("Train", released))
    apply(cluster, finetunejob("job", namespace, retries=0))
    wait_for(lambda: bool(running_pods(cluster, namespace, "Train")), "a training")
    (pod,) = running_pods(cluster, namespace, "Train")
    with held_by_finalizer(cluster, namespace, pod):
        patch(cluster, namespace, "job", suspend=True)
        wait_for_reason(cluster, namespace, "job", "Ready", "False", "Stopping")
        assert condition_of(status_of(cluster, namespace, "job"), "Suspended") == ("False", "Stopping")
        patch(cluster, namespace, "job", suspend=False)
        wait_for_reason(cluster, namespace, "job", "Suspended", "False", "Resumed")
        assert condition_of(status_of(cluster, namespace, "job"), "Ready") == ("False", "Stopping")
        assert [
            job["metadata"]["labels"]["finetune.dev/attempt"] for job in stage_jobs(cluster, namespace, "Train")
        ] == ["1"]
        released.append(True)
    wait_for_reason(cluster, namespace, "job", "Ready", "True", "Completed")
    assert status_of(cluster, namespace, "job")["attempts"]["train"] == 2


def test_the_next_attempt_waits_for_the_pods_of_a_deleted_job(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    released: list[bool] = []
    player.play(namespace, hold("Train", released))
    apply(cluster, finetunejob("job", namespace))
    wait_for(lambda: bool(running_pods(cluster, namespace, "Train")), "a training")
    (pod,) = running_pods(cluster, namespace, "Train")
    with held_by_finalizer(cluster, namespace, pod):
        cluster.run_kubectl("delete", "jobs", "-n", namespace, "-l", "finetune.dev/stage=Train", "--wait=false")
        wait_for(lambda: not stage_jobs(cluster, namespace, "Train"), "the Job to be deleted")
        wait_for_reason(cluster, namespace, "job", "Ready", "False", "Stopping")
        assert not stage_jobs(cluster, namespace, "Train")
        released.append(True)
    wait_for_reason(cluster, namespace, "job", "Ready", "True", "Completed")


def test_a_job_created_suspended_starts_when_it_is_resumed(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    apply(cluster, finetunejob("job", namespace, suspend=True))
    wait_for_reason(cluster, namespace, "job", "Suspended", "True", "Suspended")
    assert not get_all(cluster, "jobs", namespace)
    assert "startTime" not in status_of(cluster, namespace, "job")
    patch(cluster, namespace, "job", suspend=False)
    wait_for_reason(cluster, namespace, "job", "Ready", "True", "Completed")


def test_an_adapter_stays_served_while_its_job_is_suspended(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    def routes() -> str:
        return cluster.run_kubectl("get", "configmap", "job-routes", "-n", namespace, "-o", "jsonpath={.data}")

    apply(cluster, finetunejob("job", namespace, serving=OWN))
    wait_for_reason(cluster, namespace, "job", "Ready", "True", "Serving")
    before = routes()
    patch(cluster, namespace, "job", suspend=True)
    wait_for_reason(cluster, namespace, "job", "Suspended", "True", "Suspended")
    status = status_of(cluster, namespace, "job")
    assert condition_of(status, "Ready") == ("True", "Serving")
    assert condition_of(status, "Served") == ("True", "AdapterLoaded")
    assert routes() == before


def test_kueue_admits_and_evicts_the_same_job(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    """The test acts as Kueue: it unsuspends a Job and adds its flavor's node selector, then reverts both."""
    released: list[bool] = []
    player.play(namespace, hold("Train", released))

    def change(job: str, change: dict[str, Any], *more: str) -> None:
        cluster.run_kubectl("patch", "job", job, "-n", namespace, "--type=merge", "-p", json.dumps(change), *more)

    def admit(job: str) -> None:
        change(job, {"spec": {"suspend": False, "template": {"spec": {"nodeSelector": {"flavor": "a100"}}}}})

    def evict(job: str) -> None:
        change(job, {"spec": {"suspend": True}})
        change(job, {"status": {"startTime": None}}, "--subresource=status")
        change(job, {"spec": {"template": {"spec": {"nodeSelector": None}}}})

    apply(cluster, finetunejob("job", namespace, retries=0, compute={"queueName": "gpus"}))
    wait_for_reason(cluster, namespace, "job", "Ready", "False", "Queued")
    (job,) = stage_jobs(cluster, namespace, "Train")
    name = job["metadata"]["name"]
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert not running_pods(cluster, namespace, "Train")
    admit(name)
    wait_for_reason(cluster, namespace, "job", "Ready", "False", "Training")
    wait_for(lambda: bool(running_pods(cluster, namespace, "Train")), "a training")
    (pod,) = running_pods(cluster, namespace, "Train")
    with held_by_finalizer(cluster, namespace, pod):
        evict(name)
        wait_for_reason(cluster, namespace, "job", "Ready", "False", "Queued")
        stopped = {"exitCode": 143, "message": "", "startedAt": None, "finishedAt": "2026-01-01T00:00:00Z"}
        container = {"name": "train", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
        failed = {"phase": "Failed", "containerStatuses": [container | {"state": {"terminated": stopped}}]}
        text = json.dumps({"status": failed})
        cluster.run_kubectl("patch", "pod", pod, "-n", namespace, "--subresource=status", "--type=merge", "-p", text)
    wait_for(lambda: not running_pods(cluster, namespace, "Train"), "the pod to be deleted")
    admit(name)
    wait_for_reason(cluster, namespace, "job", "Ready", "False", "Training")
    released.append(True)
    wait_for_reason(cluster, namespace, "job", "Trained", "True", "Succeeded")
    assert [job["metadata"]["name"] for job in stage_jobs(cluster, namespace, "Train")] == [name]
    wait_for(lambda: bool(stage_jobs(cluster, namespace, "Evaluate")), "an evaluation")
    admit(stage_jobs(cluster, namespace, "Evaluate")[0]["metadata"]["name"])
    wait_for_reason(cluster, namespace, "job", "Ready", "True", "Completed")
    attempts = {"prepare": 1, "train": 1, "evaluate": 1, "export": 0, "disruptions": 0}
    assert status_of(cluster, namespace, "job")["attempts"] == attempts


def test_a_deadline_ends_the_job_and_stops_its_stage(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    player.play(namespace, hold("Train", []))
    apply(cluster, finetunejob("job", namespace, activeDeadlineSeconds=3))
    wait_for_reason(cluster, namespace, "job", "Failed", "True", "DeadlineExceeded")
    status = status_of(cluster, namespace, "job")
    assert condition_of(status, "Trained") == ("False", "DeadlineExceeded")
    assert 3 <= status["active"]["seconds"] <= 5
    assert "since" not in status["active"]
    wait_for(lambda: not stage_jobs(cluster, namespace, "Train"), "the training to be stopped")
    assert len(stage_jobs(cluster, namespace, "Prepare")) == 1


def exists(cluster: Cluster, namespace: str, name: str) -> bool:
    """Return whether a job exists."""
    return bool(cluster.run_kubectl("get", "ftj", name, "-n", namespace, "--ignore-not-found", "-o", "name"))


def test_a_finished_job_is_deleted_after_its_ttl_and_its_event(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    message = '{"outcome": "Failed", "reason": "DatasetInvalid", "message": "line 3: not JSON"}'
    player.play(
        namespace, lambda pod: (65, message) if pod["metadata"]["labels"]["finetune.dev/job"] == "bad" else succeed(pod)
    )
    for name in ("good", "bad"):
        apply(cluster, finetunejob(name, namespace, ttlSecondsAfterFinished=0))
    wait_for(
        lambda: not any(exists(cluster, namespace, name) for name in ("good", "bad")),
        lambda: str(get_all(cluster, "ftj", namespace)),
    )
    events = {
        (event["regarding"]["name"], event["reason"])
        for event in get_all(cluster, "events.events.k8s.io", namespace)
        if event["regarding"]["kind"] == "FineTuneJob"
    }
    assert {("good", "Completed"), ("bad", "DatasetInvalid")} <= events
    wait_for(lambda: not get_all(cluster, "jobs", namespace), "the stages to be deleted")


def test_a_job_that_a_server_uses_is_kept_after_its_ttl(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    apply(cluster, modelserver("shared", namespace))

    def rollout() -> dict[str, Any]:
        rollouts = status_of(cluster, namespace, "shared", "modelserver").get("rollouts") or [{}]
        return dict(rollouts[0])

    for name in ("first", "second", "third"):
        serving = {"modelName": "bot", "server": "shared"}
        apply(cluster, finetunejob(name, namespace, serving=serving, ttlSecondsAfterFinished=0))
        wait_for(lambda: rollout().get("stable") == name, lambda: str(rollout()))  # noqa: B023 - waited for here
    wait_for(lambda: not exists(cluster, namespace, "first"), lambda: str(status_of(cluster, namespace, "first")))
    assert (rollout()["stable"], rollout()["previous"]) == ("third", "second")
    wait_for_reason(cluster, namespace, "second", "Ready", "False", "Superseded")
    assert exists(cluster, namespace, "third")
