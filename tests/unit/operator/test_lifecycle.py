"""The decisions of a job's life under every input: limits are kept in order, time is counted once, names stay."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobstatus import ActiveTime, FineTuneJobStatus, Room
from finetune_operator.attempts import Begin, Wait, next_step
from finetune_operator.deadlines import count_active
from finetune_operator.kinds import Key
from finetune_operator.limits import KINDS, Occupancy, Turn, find_shortage
from finetune_operator.manifests.names import job_file, stage_job_name
from finetune_operator.observe import Attempt, Stage, State
from finetune_operator.occupancy import build_occupancy, is_at_work
from finetune_operator.settings import Limit
from finetune_operator.store import Store, concerned
from finetune_operator.views import JobView
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "model": {"uri": "pvc://models/base"},
    "dataset": {"train": {"uri": "configmap://data/train.jsonl"}},
    "method": {"sft": {}},
    "adapter": {"lora": {}},
    "serving": {"modelName": "bot", "server": "shared"},
}


def view(**changes: Any) -> JobView:
    spec = FineTuneJobSpec.model_validate(SPEC | changes)
    return JobView("shop", "team", "u", 1, spec, "", FineTuneJobStatus())


@pytest.mark.parametrize(
    "changes",
    [
        {"suspend": True},
        {"approved": True},
        {"ttlSecondsAfterFinished": 60},
        {"priority": 5},
        {"activeDeadlineSeconds": 60},
        {"serving": SPEC["serving"] | {"rollout": {"canary": {}}}},
    ],
)
def test_what_says_when_changes_neither_a_stage_nor_what_its_pods_read(changes: dict[str, Any]) -> None:
    before, after = view(), view(**changes)
    assert stage_job_name(after, Stage.TRAIN, 1) == stage_job_name(before, Stage.TRAIN, 1)
    assert job_file(after).to_json() == job_file(before).to_json()


@pytest.mark.parametrize("changes", [{"retries": 1}, {"serving": SPEC["serving"] | {"server": "other"}}])
def test_what_says_what_changes_the_names(changes: dict[str, Any]) -> None:
    assert stage_job_name(view(**changes), Stage.TRAIN, 1) != stage_job_name(view(), Stage.TRAIN, 1)


def disrupted(count: int) -> list[Attempt]:
    return [Attempt(Stage.TRAIN, number, f"t{number}", State.DISRUPTED, finished=NOW) for number in range(1, count + 1)]


@given(st.integers(1, 5_000))
def test_disruptions_without_an_end_back_off_and_never_for_long(count: int) -> None:
    step = next_step(Stage.TRAIN, disrupted(count), count, 0, NOW)
    assert isinstance(step, Wait)
    assert step.until is not None
    assert timedelta(seconds=10) <= step.until - NOW <= timedelta(minutes=5)
    assert count == 1 or step.until - NOW >= timedelta(seconds=20)


def test_a_stage_whose_job_vanishes_is_not_begun_again_and_again_at_once() -> None:
    step = next_step(Stage.TRAIN, [], 3, 0, NOW, NOW - timedelta(seconds=1))
    assert isinstance(step, Wait)
    assert step.until == NOW + timedelta(seconds=39)
    assert next_step(Stage.TRAIN, [], 3, 0, NOW, NOW - timedelta(seconds=40)) == Begin(4)
    assert next_step(Stage.TRAIN, [], 3, 0, NOW) == Begin(4)


def test_a_job_on_its_way_out_is_no_attempt_any_more() -> None:
    going = Attempt(Stage.TRAIN, 1, "t1", State.FAILED, is_going=True, finished=NOW)
    assert next_step(Stage.TRAIN, [going], 1, 0, NOW) == Begin(2)


@given(st.lists(st.sampled_from(["run", "queue", "stop", "end"]), max_size=20), st.integers(1, 50))
def test_time_at_work_is_counted_once_and_only_while_a_stage_runs(steps: list[str], seconds: int) -> None:
    known, at, worked, running = ActiveTime(), NOW, 0, False
    for step in steps:
        attempt = Attempt(
            Stage.TRAIN,
            1,
            "t1",
            State.SUCCEEDED if step == "end" else State.ACTIVE,
            queue="gpus" if step == "queue" else None,
            is_going=step == "stop",
            finished=at if step == "end" else None,
        )
        # Whether it is looked at once or twice makes no difference.
        known = count_active(count_active(known, [attempt], at), [attempt], at)
        running = step == "run"
        at += timedelta(seconds=seconds)
        worked += seconds if running else 0
    assert count_active(known, [], at) == ActiveTime(seconds=worked)


def test_an_attempt_that_ended_unseen_counts_until_its_end() -> None:
    ended = Attempt(Stage.TRAIN, 1, "t1", State.SUCCEEDED, finished=NOW + timedelta(seconds=30))
    active = count_active(ActiveTime(seconds=5, since=NOW), [ended], NOW + timedelta(hours=1))
    assert active == ActiveTime(seconds=35)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=12),
    st.integers(4, 8),
    st.randoms(use_true_random=False),
)
def test_a_limit_is_never_passed_and_nobody_is_overtaken(jobs: list[tuple[int, int]], gpus: int, random: Any) -> None:
    """Jobs with GPUs and priorities ask in any order, again and again, until each has run."""
    turns: dict[Turn, int] = {
        (-priority, f"2026-01-01T00:00:{place:02}Z", f"j{place}"): wanted
        for place, (wanted, priority) in enumerate(jobs)
    }
    waiting, running = dict(turns), dict[Turn, int]()
    for _ in range(len(jobs) + 1):
        for turn in random.sample(sorted(waiting), len(waiting)):
            before = min((one for one in waiting if one != turn), default=None)
            others = Occupancy(gpus=sum(running.values()), first={"gpus": before} if before else {})
            if find_shortage("team", Limit(gpus=gpus), turn, Room(gpus=waiting[turn]), others) is None:
                assert turn == min(waiting)
                running[turn] = waiting.pop(turn)
            assert sum(running.values()) <= gpus
        if running:
            running.pop(random.choice(sorted(running)))
    assert not waiting


def job(name: str, version: int = 1, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": str(version)}
    metadata["creationTimestamp"] = f"2026-01-01T00:00:0{len(name)}Z"
    kind = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob"}
    return kind | {"metadata": metadata, "spec": {}, "status": status}


def child(name: str, owner: str, gpus: int = 0, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": "1"}
    containers = [{"resources": {"limits": {"gpu": str(gpus)}}}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata | {"labels": {"finetune.dev/job": owner}},
        "spec": {"parallelism": 2, "template": {"spec": {"containers": containers}}},
        "status": status,
    }


def true(*kinds: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": "True"} for kind in kinds]


BEGUN = {"attempts": {"prepare": 1}}


@pytest.mark.parametrize(
    ("status", "spec", "expected"),
    [
        ({}, {}, False),
        (BEGUN, {}, True),
        (BEGUN | {"conditions": true("Failed")}, {}, False),
        (BEGUN | {"conditions": true("Suspended")}, {}, False),
        (BEGUN | {"conditions": true("Trained")}, {}, True),
        (BEGUN | {"conditions": true("Evaluated")}, {}, False),
        (BEGUN | {"conditions": true("Evaluated")}, {"output": {"merged": True}}, True),
        (BEGUN | {"conditions": true("Evaluated", "Exported")}, {"output": {"merged": True}}, False),
        (BEGUN | {"waitingFor": {"jobs": 1}}, {}, False),
        (BEGUN | {"waitingFor": {"gpus": 4}}, {}, True),
    ],
)
def test_a_job_is_at_work_until_its_result_is_proven_and_exported(
    status: dict[str, Any], spec: dict[str, Any], expected: bool
) -> None:
    assert is_at_work(job("a", **status) | {"spec": spec}) == expected


def test_the_first_of_each_line_looks_again_when_something_is_given_back_in_its_namespace() -> None:
    store = Store()
    for one in (
        job("a", waitingFor={"gpus": 8, "jobs": 0}),
        job("bb", waitingFor={"gpus": 1, "jobs": 0}),
        job("ccc", waitingFor={"jobs": 1, "gpus": 0}),
        job("dddd", waitingFor={"jobs": 1, "gpus": 0}),
        child("x-train-1", "x"),
    ):
        change = store.put(one)
        assert change is not None
        assert len(concerned(store, change)) == 1
    ended = child("x-train-1", "x", conditions=true("Complete"))
    ended["metadata"]["resourceVersion"] = "2"
    change = store.put(ended)
    assert change is not None
    assert concerned(store, change) == keys("a", "ccc", "x")
    begun = store.put(job("a", 2, attempts={"prepare": 1, "train": 1}))
    assert begun is not None
    assert concerned(store, begun) == keys("a", "bb", "ccc")
    assert [one["metadata"]["name"] for one in store.at_work("team")] == ["a"]
    gone = store.remove(job("ccc", 2))
    assert gone is not None
    assert concerned(store, gone) == keys("bb", "ccc", "dddd")


def keys(*names: str) -> list[Key]:
    return [Key("FineTuneJob", "team", name) for name in names]


def occupancy(store: Store) -> Occupancy:
    return build_occupancy(
        "mine",
        store.at_work("team"),
        {kind: store.waiting("team", kind) for kind in KINDS},
        store.unended("Job", "team"),
        store.unended("Pod", "team"),
        "gpu",
    )


def test_jobs_that_are_just_being_made_count_as_if_they_were_there() -> None:
    store = Store()
    new = child("a-train-1", "a", gpus=2)
    with store.expecting([new, {"kind": "ConfigMap", "metadata": {"namespace": "team", "name": "x"}}]):
        assert occupancy(store) == Occupancy(jobs=frozenset({"a"}), gpus=4)
        store.put(new)
        assert occupancy(store) == Occupancy(jobs=frozenset({"a"}), gpus=4)
    assert occupancy(store) == Occupancy(jobs=frozenset({"a"}), gpus=4)
    refused = child("b-train-1", "b", gpus=2)
    with store.expecting([refused]):
        assert occupancy(store).gpus == 8
    assert occupancy(store).gpus == 4


def test_pods_hold_their_gpus_until_they_end_also_when_their_job_is_gone() -> None:
    store = Store()
    made = child("a-train-1", "a", gpus=2)
    pod = child("a-train-1-0", "a", gpus=2) | {"apiVersion": "v1", "kind": "Pod"}
    pod["spec"] = pod["spec"]["template"]["spec"]
    pod["metadata"]["ownerReferences"] = [{"uid": "a-train-1", "controller": True}]
    store.put(made)
    store.put(pod)
    assert occupancy(store).gpus == 4
    gone = {**made, "metadata": made["metadata"] | {"resourceVersion": "2"}}
    store.remove(gone)
    assert occupancy(store).gpus == 2
    store.put({**pod, "metadata": pod["metadata"] | {"resourceVersion": "3"}, "status": {"phase": "Failed"}})
    assert occupancy(store).gpus == 0
