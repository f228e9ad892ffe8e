"""Who may begin where there is a limit, and what a namespace has at work."""

from typing import Any

import pytest
from finetune_api.jobstatus import Room
from finetune_operator.controller.cache import Store
from finetune_operator.job.quota import KINDS, Occupancy, Turn, build_occupancy, find_shortage, is_at_work
from finetune_operator.settings import Limit
from hypothesis import given
from hypothesis import strategies as st
from unit.stored import stored_job, stored_stage, true

BEGUN = {"attempts": {"prepare": 1}}


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=12),
    st.integers(4, 8),
    st.randoms(use_true_random=False),
)
def test_jobs_begin_in_their_order_and_within_the_limit(jobs: list[tuple[int, int]], gpus: int, random: Any) -> None:
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
    assert is_at_work(stored_job("a", **status) | {"spec": spec}) == expected


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
    new = stored_stage("a-train-1", "a", gpus=2)
    with store.expecting([new, {"kind": "ConfigMap", "metadata": {"namespace": "team", "name": "x"}}]):
        assert occupancy(store) == Occupancy(jobs=frozenset({"a"}), gpus=4)
        store.put(new)
        assert occupancy(store) == Occupancy(jobs=frozenset({"a"}), gpus=4)
    assert occupancy(store) == Occupancy(jobs=frozenset({"a"}), gpus=4)
    refused = stored_stage("b-train-1", "b", gpus=2)
    with store.expecting([refused]):
        assert occupancy(store).gpus == 8
    assert occupancy(store).gpus == 4


def test_pods_hold_their_gpus_until_they_end_also_when_their_job_is_gone() -> None:
    store = Store()
    made = stored_stage("a-train-1", "a", gpus=2)
    pod = stored_stage("a-train-1-0", "a", gpus=2) | {"apiVersion": "v1", "kind": "Pod"}
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
