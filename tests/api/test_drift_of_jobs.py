"""Jobs and the artifacts claim, which the operator never replaces: no attempt starts twice."""

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

import pytest
from api.account import make_namespace
from api.conftest import Operator, apply, condition_of, finetunejob, get_all, status_of
from api.drift import RUNNING, SECONDS, Live, add, content, hold, replace, uid_of
from api.player import Player, succeed
from cluster.control_plane import Cluster
from waiting import wait_for

FOREIGN = {
    "spec": {
        "suspend": True,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "other", "image": "other:1"}]}},
    }
}
"""Spec of a Job that another owner created."""


class HeldJob:
    """A FineTuneJob whose stage runs until it is released."""

    def __init__(self, cluster: Cluster, player: Player, namespace: str, stage: str) -> None:
        self.cluster, self.namespace, self.stage = cluster, namespace, stage
        self._released: list[bool] = []
        player.play(namespace, hold(stage, self._released))
        # No retries: a change from outside must not count as a failure of the training.
        apply(cluster, finetunejob("job", namespace, retries=0))

    @cached_property
    def first(self) -> Live:
        """The stage's first Job, once its pod runs."""
        wait_for(lambda: bool(self.active()), lambda: f"{self.stage}: {self.status()}")
        return Live(self.cluster, "Job", self.namespace, self.active()[0])

    def status(self) -> dict[str, Any]:
        """Return the job's status."""
        return status_of(self.cluster, self.namespace, "job")

    def ready(self) -> tuple[str, str]:
        """Return status and reason of Ready."""
        return condition_of(self.status(), "Ready")

    def attempts(self) -> list[str]:
        """Return the names of the stage's Jobs, whatever their labels are."""
        names = [job["metadata"]["name"] for job in get_all(self.cluster, "jobs", self.namespace)]
        return sorted(name for name in names if name.startswith(f"job-{self.stage.lower()}-"))

    def active(self) -> list[str]:
        """Return the names of the attempts whose pod runs."""
        pods = get_all(self.cluster, "pods", self.namespace)
        running = {pod["metadata"]["ownerReferences"][0]["name"] for pod in pods if pod["status"]["phase"] == "Running"}
        return [name for name in self.attempts() if name in running]

    def next_attempt(self) -> str:
        """Return the name of the second attempt."""
        return self.first.name.replace(f"-{self.stage.lower()}-1-", f"-{self.stage.lower()}-2-")

    def release(self) -> None:
        """Let the stage succeed."""
        self._released.append(True)

    def finish(self) -> None:
        """Let the stage succeed and wait until the job completes."""
        self.release()
        self.wait_until_completed()

    def wait_until_completed(self) -> None:
        """Wait until the job is completed."""
        self.wait_for(lambda: self.ready() == ("True", "Completed"), 60)

    def wait_for(self, is_true: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Wait until a condition holds; on timeout show the job's status."""
        wait_for(is_true, lambda: f"Jobs {self.attempts()}, status {json.dumps(self.status())}", seconds)


def hold_job(cluster: Cluster, player: Player, namespace: str, stage: str) -> HeldJob:
    """Return a job that runs a stage until it is released."""
    held = HeldJob(cluster, player, namespace, stage)
    assert held.first.get()
    return held


def hold_all_stages(cluster: Cluster, player: Player, namespace: str) -> list[HeldJob]:
    """Return one job for each stage, held in that stage, each in its own namespace: they wait in parallel."""
    jobs = []
    for stage in RUNNING:
        own = f"{namespace}-{stage.lower()}"
        make_namespace(cluster, own)
        jobs.append(HeldJob(cluster, player, own, stage))
    for held in jobs:
        assert held.first.get()
    return jobs


def finish_all(jobs: list[HeldJob]) -> None:
    """Let all stages succeed and wait until the jobs complete."""
    for held in jobs:
        held.release()
    for held in jobs:
        held.wait_until_completed()


def test_a_stage_whose_job_lost_its_labels_continues(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    jobs = hold_all_stages(cluster, player, namespace)
    before = [content(held.first.get())["labels"] for held in jobs]
    for held, labels in zip(jobs, before, strict=True):
        # A Job without any label gets those of its pod template.
        ours = [name for name in labels if name.startswith("finetune.dev/")]
        held.first.patch([{"op": "remove", "path": f"/metadata/labels/{name.replace('/', '~1')}"} for name in ours])
    for held, labels in zip(jobs, before, strict=True):
        held.first.wait_until(lambda now, labels=labels: content(now)["labels"] == labels, "labels")  # type: ignore[misc]
    finish_all(jobs)
    for held in jobs:
        assert held.attempts() == [held.first.name]
        assert held.status()["attempts"][held.stage.lower()] == 1


@pytest.mark.parametrize(("label", "value"), [("attempt", "7"), ("stage", "Prepare"), ("job", "other")])
def test_a_changed_label_of_a_training_is_restored(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, label: str, value: str
) -> None:
    held = hold_job(cluster, player, namespace, "Train")
    before = content(held.first.get())["labels"]
    held.first.patch(replace(f"/metadata/labels/finetune.dev~1{label}", value))
    held.first.wait_until(lambda now: content(now)["labels"] == before, label)
    held.finish()
    assert held.attempts() == [held.first.name]
    attempts = held.status()["attempts"]
    assert (attempts["prepare"], attempts["train"]) == (1, 1)


def test_no_second_attempt_starts_beside_a_job_without_owner(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    jobs = hold_all_stages(cluster, player, namespace)
    for held in jobs:
        held.first.remove_metadata("ownerReferences")
    for held in jobs:
        held.wait_for(lambda held=held: held.ready() == ("False", "Conflict"))  # type: ignore[misc]
        assert held.attempts() == [held.first.name]
        held.first.delete()
    finish_all(jobs)
    for held in jobs:
        assert held.attempts() == [held.next_attempt()]


def test_a_deleted_job_is_replaced_by_the_next_attempt_without_a_retry(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    jobs = hold_all_stages(cluster, player, namespace)
    for held in jobs:
        held.first.delete()
    for held in jobs:
        held.wait_for(lambda held=held: held.active() == [held.next_attempt()])  # type: ignore[misc]
    finish_all(jobs)
    for held in jobs:
        assert held.attempts() == [held.next_attempt()]
        assert held.status()["attempts"][held.stage.lower()] == 2


def test_a_foreign_job_with_an_attempts_name_is_not_changed(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    jobs = hold_all_stages(cluster, player, namespace)
    with operator.paused():
        for held in jobs:
            held.first.delete()
        foreign_jobs = [held.first.create(FOREIGN, {"team": "other"}) for held in jobs]
    for held in jobs:
        held.wait_for(lambda held=held: held.active() == [held.next_attempt()])  # type: ignore[misc]
    finish_all(jobs)
    for held, foreign_job in zip(jobs, foreign_jobs, strict=True):
        now = held.first.get()
        assert (uid_of(now), content(now)) == (uid_of(foreign_job), content(foreign_job))


def test_an_attempt_waits_while_a_foreign_job_has_its_name(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    held = hold_job(cluster, player, namespace, "Train")
    taken = Live(cluster, "Job", namespace, held.next_attempt())
    foreign = taken.create(FOREIGN, {"team": "other"})
    held.first.delete()
    held.wait_for(lambda: held.ready() == ("False", "Conflict"))
    now = taken.get()
    assert (uid_of(now), content(now)) == (uid_of(foreign), content(foreign))
    taken.delete()
    held.wait_for(lambda: held.active() == [held.next_attempt()], 60)
    held.finish()
    assert held.status()["attempts"]["train"] == 2


def test_a_training_is_kept_until_its_report_is_read(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    """With `ttlSecondsAfterFinished: 0` the cluster deletes a Job and its pod as soon as the Job ends."""
    held = hold_job(cluster, player, namespace, "Train")
    held.first.patch(add("/spec/ttlSecondsAfterFinished", 0))
    held.first.wait_until(lambda now: now["spec"].get("ttlSecondsAfterFinished") != 0, "ttlSecondsAfterFinished")
    held.finish()
    assert held.attempts() == [held.first.name]
    assert held.status()["attempts"]["train"] == 1


def test_the_number_of_pods_of_a_training_is_restored(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    held = hold_job(cluster, player, namespace, "Train")
    held.first.patch(replace("/spec/parallelism", 0))
    held.first.wait_until(lambda now: now["spec"]["parallelism"] == 1, "parallelism")
    held.wait_for(lambda: held.active() == [held.first.name])
    held.finish()
    assert held.attempts() == [held.first.name]


def test_a_training_that_somebody_suspends_is_reported_and_continues_when_resumed(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    """Kueue or a user who needs the GPUs may suspend a Job: that is no failure, and the operator never reverts it."""
    held = hold_job(cluster, player, namespace, "Train")
    held.first.patch(replace("/spec/suspend", value=True))
    held.wait_for(lambda: held.ready()[1] not in ("Training", ""))
    assert held.first.name in next(
        condition["message"] for condition in held.status()["conditions"] if condition["type"] == "Ready"
    )
    assert held.first.get()["spec"]["suspend"] is True
    held.first.patch(replace("/spec/suspend", value=False))
    held.wait_for(lambda: held.ready() == ("False", "Training"))
    held.finish()
    assert held.attempts() == [held.first.name]
    assert held.status()["attempts"]["train"] == 1


def claim_of(cluster: Cluster, namespace: str) -> Live:
    """Return the namespace's claim for artifacts."""
    return Live(cluster, "PersistentVolumeClaim", namespace, "finetune-artifacts")


def test_a_claim_without_labels_is_still_used(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    held = hold_job(cluster, player, namespace, "Prepare")
    claim = claim_of(cluster, namespace)
    before = claim.get()
    claim.remove_metadata("labels")
    held.finish()
    assert (uid_of(claim.get()), content(claim.get())["spec"]) == (uid_of(before), content(before)["spec"])


def test_a_deleted_claim_is_recreated_while_a_job_needs_it(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    held = hold_job(cluster, player, namespace, "Train")
    claim = claim_of(cluster, namespace)
    before = claim.get()
    claim.delete()
    claim.wait_until(lambda now: uid_of(now) not in ("", uid_of(before)), "a new claim")
    assert content(claim.get()) == content(before)
    held.finish()


def test_a_claim_that_an_administrator_created_is_used_unchanged(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    foreign = claim_of(cluster, namespace).create(
        {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "7Gi"}}}}, {"team": "other"}
    )
    player.play(namespace, succeed)
    apply(cluster, finetunejob("job", namespace))
    wait_for(
        lambda: condition_of(status_of(cluster, namespace, "job"), "Ready") == ("True", "Completed"),
        lambda: str(status_of(cluster, namespace, "job")),
    )
    assert content(claim_of(cluster, namespace).get()) == content(foreign)
