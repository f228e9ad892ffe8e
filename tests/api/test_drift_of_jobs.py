"""Jobs and the claim, which are never replaced: whatever happens to them, no attempt begins twice."""

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
"""A Job of somebody else."""


class Held:
    """A FineTuneJob whose stage runs until it is released."""

    def __init__(self, cluster: Cluster, player: Player, namespace: str, stage: str) -> None:
        self.cluster, self.namespace, self.stage = cluster, namespace, stage
        self._released: list[bool] = []
        player.play(namespace, hold(stage, self._released))
        # No failure is forgiven: what happens from outside is no failure of the training.
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
        """Return the names of the stage's Jobs, whatever their labels are by now."""
        names = [one["metadata"]["name"] for one in get_all(self.cluster, "jobs", self.namespace)]
        return sorted(name for name in names if name.startswith(f"job-{self.stage.lower()}-"))

    def active(self) -> list[str]:
        """Return those whose pod runs."""
        pods = get_all(self.cluster, "pods", self.namespace)
        running = {pod["metadata"]["ownerReferences"][0]["name"] for pod in pods if pod["status"]["phase"] == "Running"}
        return [name for name in self.attempts() if name in running]

    def next_attempt(self) -> str:
        """Return the name of the attempt that would follow the first."""
        return self.first.name.replace(f"-{self.stage.lower()}-1-", f"-{self.stage.lower()}-2-")

    def let_go(self) -> None:
        """Let the stage succeed."""
        self._released.append(True)

    def release(self) -> None:
        """Let the stage succeed, and wait until the job has."""
        self.let_go()
        self.wait_until_completed()

    def wait_until_completed(self) -> None:
        """Wait until the job has succeeded."""
        self.wait_for(lambda: self.ready() == ("True", "Completed"), 60)

    def wait_for(self, is_true: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Wait for something about the job."""
        wait_for(is_true, lambda: f"Jobs {self.attempts()}, status {json.dumps(self.status())}", seconds)


def hold_one(cluster: Cluster, player: Player, namespace: str, stage: str) -> Held:
    """Return a job that is held in a stage."""
    held = Held(cluster, player, namespace, stage)
    assert held.first.get()
    return held


def hold_each(cluster: Cluster, player: Player, namespace: str) -> list[Held]:
    """Return a job that is held in each stage, in a namespace of its own: they wait side by side."""
    each = []
    for stage in RUNNING:
        own = f"{namespace}-{stage.lower()}"
        make_namespace(cluster, own)
        each.append(Held(cluster, player, own, stage))
    for held in each:
        assert held.first.get()
    return each


def release_each(each: list[Held]) -> None:
    """Let the stages succeed, and wait until the jobs have."""
    for held in each:
        held.let_go()
    for held in each:
        held.wait_until_completed()


def test_a_stage_whose_job_lost_its_labels_goes_on(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    each = hold_each(cluster, player, namespace)
    before = [content(held.first.get())["labels"] for held in each]
    for held, labels in zip(each, before, strict=True):
        # A Job without any label is given those of its pods.
        ours = [name for name in labels if name.startswith("finetune.dev/")]
        held.first.patch([{"op": "remove", "path": f"/metadata/labels/{name.replace('/', '~1')}"} for name in ours])
    for held, labels in zip(each, before, strict=True):
        held.first.wait_until(lambda now, labels=labels: content(now)["labels"] == labels, "labels")  # type: ignore[misc]
    release_each(each)
    for held in each:
        assert held.attempts() == [held.first.name]
        assert held.status()["attempts"][held.stage.lower()] == 1


@pytest.mark.parametrize(("label", "value"), [("attempt", "7"), ("stage", "Prepare"), ("job", "other")])
def test_a_label_of_a_training_that_somebody_changed_is_mended(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, label: str, value: str
) -> None:
    held = hold_one(cluster, player, namespace, "Train")
    before = content(held.first.get())["labels"]
    held.first.patch(replace(f"/metadata/labels/finetune.dev~1{label}", value))
    held.first.wait_until(lambda now: content(now)["labels"] == before, label)
    held.release()
    assert held.attempts() == [held.first.name]
    attempts = held.status()["attempts"]
    assert (attempts["prepare"], attempts["train"]) == (1, 1)


def test_no_stage_begins_beside_a_job_that_lost_its_owner(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    each = hold_each(cluster, player, namespace)
    for held in each:
        held.first.lose("ownerReferences")
    for held in each:
        held.wait_for(lambda held=held: held.ready() == ("False", "Conflict"))  # type: ignore[misc]
        assert held.attempts() == [held.first.name]
        held.first.delete()
    release_each(each)
    for held in each:
        assert held.attempts() == [held.next_attempt()]


def test_a_deleted_job_is_followed_by_the_next_attempt_and_costs_no_retry(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    each = hold_each(cluster, player, namespace)
    for held in each:
        held.first.delete()
    for held in each:
        held.wait_for(lambda held=held: held.active() == [held.next_attempt()])  # type: ignore[misc]
    release_each(each)
    for held in each:
        assert held.attempts() == [held.next_attempt()]
        assert held.status()["attempts"][held.stage.lower()] == 2


def test_a_job_of_somebody_else_in_the_place_of_an_attempt_is_left_alone(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    each = hold_each(cluster, player, namespace)
    with operator.frozen():
        for held in each:
            held.first.delete()
        foreign = [held.first.create(FOREIGN, {"team": "other"}) for held in each]
    for held in each:
        held.wait_for(lambda held=held: held.active() == [held.next_attempt()])  # type: ignore[misc]
    release_each(each)
    for held, one in zip(each, foreign, strict=True):
        now = held.first.get()
        assert (uid_of(now), content(now)) == (uid_of(one), content(one))


def test_an_attempt_waits_while_somebody_else_has_its_name(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    held = hold_one(cluster, player, namespace, "Train")
    taken = Live(cluster, "Job", namespace, held.next_attempt())
    foreign = taken.create(FOREIGN, {"team": "other"})
    held.first.delete()
    held.wait_for(lambda: held.ready() == ("False", "Conflict"))
    now = taken.get()
    assert (uid_of(now), content(now)) == (uid_of(foreign), content(foreign))
    taken.delete()
    held.wait_for(lambda: held.active() == [held.next_attempt()], 60)
    held.release()
    assert held.status()["attempts"]["train"] == 2


def test_a_training_that_would_vanish_with_its_report_is_kept(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    """With `ttlSecondsAfterFinished` of 0 the cluster deletes a Job with its pod as soon as it ends."""
    held = hold_one(cluster, player, namespace, "Train")
    held.first.patch(add("/spec/ttlSecondsAfterFinished", 0))
    held.first.wait_until(lambda now: now["spec"].get("ttlSecondsAfterFinished") != 0, "ttlSecondsAfterFinished")
    held.release()
    assert held.attempts() == [held.first.name]
    assert held.status()["attempts"]["train"] == 1


def test_the_number_of_pods_of_a_training_is_mended(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    held = hold_one(cluster, player, namespace, "Train")
    held.first.patch(replace("/spec/parallelism", 0))
    held.first.wait_until(lambda now: now["spec"]["parallelism"] == 1, "parallelism")
    held.wait_for(lambda: held.active() == [held.first.name])
    held.release()
    assert held.attempts() == [held.first.name]


def test_a_training_that_somebody_suspends_is_told_of_and_goes_on_when_it_is_resumed(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    """Kueue suspends Jobs, and so does whoever needs the GPUs: it is no fault, and never undone."""
    held = hold_one(cluster, player, namespace, "Train")
    held.first.patch(replace("/spec/suspend", value=True))
    held.wait_for(lambda: held.ready()[1] not in ("Training", ""))
    assert held.first.name in next(one["message"] for one in held.status()["conditions"] if one["type"] == "Ready")
    assert held.first.get()["spec"]["suspend"] is True
    held.first.patch(replace("/spec/suspend", value=False))
    held.wait_for(lambda: held.ready() == ("False", "Training"))
    held.release()
    assert held.attempts() == [held.first.name]
    assert held.status()["attempts"]["train"] == 1


def claim_of(cluster: Cluster, namespace: str) -> Live:
    """Return the namespace's claim for artifacts."""
    return Live(cluster, "PersistentVolumeClaim", namespace, "finetune-artifacts")


def test_a_claim_whose_labels_were_taken_is_the_claim_still(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    held = hold_one(cluster, player, namespace, "Prepare")
    claim = claim_of(cluster, namespace)
    before = claim.get()
    claim.lose("labels")
    held.release()
    assert (uid_of(claim.get()), content(claim.get())["spec"]) == (uid_of(before), content(before)["spec"])


def test_a_claim_that_is_gone_is_made_anew_while_a_job_needs_it(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    held = hold_one(cluster, player, namespace, "Train")
    claim = claim_of(cluster, namespace)
    before = claim.get()
    claim.delete()
    claim.wait_until(lambda now: uid_of(now) not in ("", uid_of(before)), "a new claim")
    assert content(claim.get()) == content(before)
    held.release()


def test_a_claim_that_an_administrator_made_is_used_as_it_is(
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
