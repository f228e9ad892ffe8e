"""Which jobs may start under the limits of a namespace, and which quota counts as used."""

from typing import Any

import pytest
from finetune_api.jobstatus import QuotaRequest
from finetune_operator.controller.cache import Cache
from finetune_operator.controller.indexes import ACTIVE, INDEXERS, UNFINISHED, WAITING
from finetune_operator.job.quota import (
    QUOTA_RESOURCES,
    QueuePosition,
    QuotaUsage,
    check_insufficient_quota,
    count_usage,
    is_active,
)
from finetune_operator.settings import Limit
from hypothesis import given
from hypothesis import strategies as st
from unit.stored import stored_job, stored_stage, true

STARTED = {"attempts": {"prepare": 1}}


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=12),
    st.integers(4, 8),
    st.randoms(use_true_random=False),
)
def test_jobs_start_in_the_order_of_the_queue_and_within_the_limit(
    jobs: list[tuple[int, int]], gpus: int, random: Any
) -> None:
    """Jobs with GPUs and priorities request quota repeatedly and in any order until each has run."""
    positions: dict[QueuePosition, int] = {
        (-priority, f"2026-01-01T00:00:{place:02}Z", f"j{place}"): wanted
        for place, (wanted, priority) in enumerate(jobs)
    }
    waiting, running = dict(positions), dict[QueuePosition, int]()
    for _ in range(len(jobs) + 1):
        for position in random.sample(sorted(waiting), len(waiting)):
            before = min((other for other in waiting if other != position), default=None)
            others = QuotaUsage(gpus=sum(running.values()), first={"gpus": before} if before else {})
            request = QuotaRequest(gpus=waiting[position])
            if check_insufficient_quota("team", Limit(gpus=gpus), position, request, others) is None:
                assert position == min(waiting)
                running[position] = waiting.pop(position)
            assert sum(running.values()) <= gpus
        if running:
            running.pop(random.choice(sorted(running)))
    assert not waiting


@pytest.mark.parametrize(
    ("status", "spec", "expected"),
    [
        ({}, {}, False),
        (STARTED, {}, True),
        (STARTED | {"conditions": true("Failed")}, {}, False),
        (STARTED | {"conditions": true("Suspended")}, {}, False),
        (STARTED | {"conditions": true("Trained")}, {}, True),
        (STARTED | {"conditions": true("Evaluated")}, {}, False),
        (STARTED | {"conditions": true("Evaluated")}, {"output": {"merged": True}}, True),
        (STARTED | {"conditions": true("Evaluated", "Exported")}, {"output": {"merged": True}}, False),
        (STARTED | {"waitingFor": {"jobs": 1}}, {}, False),
        (STARTED | {"waitingFor": {"gpus": 4}}, {}, True),
    ],
)
def test_a_job_is_active_until_its_result_has_passed_its_gates_and_is_exported(
    status: dict[str, Any], spec: dict[str, Any], expected: bool
) -> None:
    assert is_active(stored_job("a", **status) | {"spec": spec}) == expected


def usage(cache: Cache) -> QuotaUsage:
    return count_usage(
        "mine",
        cache.by_index("FineTuneJob", ACTIVE, "team"),
        {resource: cache.by_index("FineTuneJob", WAITING, "team", resource) for resource in QUOTA_RESOURCES},
        [*cache.by_index("Job", UNFINISHED, "team"), *cache.assumed("Job", "team")],
        cache.by_index("Pod", UNFINISHED, "team"),
        "gpu",
    )


def test_jobs_that_are_being_created_count_as_if_they_existed() -> None:
    cache = Cache(INDEXERS)
    new = stored_stage("a-train-1", "a", gpus=2)
    with cache.assume([new, {"kind": "ConfigMap", "metadata": {"namespace": "team", "name": "x"}}]):
        assert usage(cache) == QuotaUsage(jobs=frozenset({"a"}), gpus=4)
        cache.put(new)
        assert usage(cache) == QuotaUsage(jobs=frozenset({"a"}), gpus=4)
    assert usage(cache) == QuotaUsage(jobs=frozenset({"a"}), gpus=4)
    refused = stored_stage("b-train-1", "b", gpus=2)
    with cache.assume([refused]):
        assert usage(cache).gpus == 8
    assert usage(cache).gpus == 4


def test_pods_use_their_gpus_until_they_end_even_after_their_job_is_deleted() -> None:
    cache = Cache(INDEXERS)
    made = stored_stage("a-train-1", "a", gpus=2)
    pod = stored_stage("a-train-1-0", "a", gpus=2) | {"apiVersion": "v1", "kind": "Pod"}
    pod["spec"] = pod["spec"]["template"]["spec"]
    pod["metadata"]["ownerReferences"] = [{"uid": "a-train-1", "controller": True}]
    cache.put(made)
    cache.put(pod)
    assert usage(cache).gpus == 4
    gone = {**made, "metadata": made["metadata"] | {"resourceVersion": "2"}}
    cache.remove(gone)
    assert usage(cache).gpus == 2
    cache.put({**pod, "metadata": pod["metadata"] | {"resourceVersion": "3"}, "status": {"phase": "Failed"}})
    assert usage(cache).gpus == 0
