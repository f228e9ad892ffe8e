"""What a namespace has at work."""

from typing import Any

import pytest
from finetune_operator.limits import KINDS, Occupancy
from finetune_operator.occupancy import build_occupancy, is_at_work
from finetune_operator.store import Store
from unit.stored import stored_job, stored_stage, true

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
