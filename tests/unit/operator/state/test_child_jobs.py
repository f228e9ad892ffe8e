"""What Jobs and pods say of an attempt."""

from typing import Any

import pytest
from finetune_operator.state.child_jobs import AttemptState, view_attempt


@pytest.mark.parametrize(
    ("ended", "pod", "state"),
    [
        ("Complete", {"phase": "Running"}, AttemptState.ACTIVE),
        ("Complete", {"phase": "Succeeded"}, AttemptState.SUCCEEDED),
        ("Failed", {"phase": "Running"}, AttemptState.ACTIVE),
        (
            "Failed",
            {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]},
            AttemptState.FAILED,
        ),
        (
            "Failed",
            {"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "True"}]},
            AttemptState.DISRUPTED,
        ),
    ],
)
def test_an_attempt_is_judged_when_its_pod_is_known_to_have_ended(
    ended: str, pod: dict[str, Any], state: AttemptState
) -> None:
    conditions = [{"type": ended, "status": "True", "reason": "BackoffLimitExceeded"}]
    job = {"metadata": {"name": "job-train-1-abcdef"}, "status": {"conditions": conditions}}
    attempt = view_attempt(job, [{"metadata": {"name": "pod"}, "status": pod}])
    assert attempt
    assert attempt.state is state


@pytest.mark.parametrize("time", ["0000-01-01T00:00:00Z", "2016-12-31T23:59:60Z", "yesterday"])
def test_a_time_outside_the_calendar_is_left_out(time: str) -> None:
    attempt = view_attempt({"metadata": {"name": "a-train-1-abcdef"}, "status": {"startTime": time}}, [])
    assert attempt is not None
    assert attempt.started is None


@pytest.mark.parametrize("name", ["a-train-99999-abcdef", "a-train-1", "a-sleep-1-abcdef", "a-train-x-abcdef", "a"])
def test_only_a_job_with_a_name_of_ours_is_an_attempt(name: str) -> None:
    labels = {"finetune.dev/stage": "Train", "finetune.dev/attempt": "1"}
    assert view_attempt({"metadata": {"name": name, "labels": labels}}, []) is None


@pytest.mark.parametrize(
    ("reason", "message", "may_wait"),
    [
        ("Unschedulable", "pod has unbound immediate PersistentVolumeClaims. not found", True),
        ("Unschedulable", 'persistentvolumeclaim "models" not found', True),
        ("Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", False),
        ("SchedulingGated", "a PersistentVolumeClaim", False),
    ],
)
def test_an_unschedulable_pod_may_wait_for_its_claims(reason: str, message: str, may_wait: bool) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    pod = {"metadata": {"name": "pod"}, "status": {"phase": "Pending", "conditions": [condition]}}
    attempt = view_attempt({"metadata": {"name": "a-train-1-abcdef"}}, [pod])
    assert attempt is not None
    assert attempt.waits_for_volumes == may_wait


@pytest.mark.parametrize(("state", "may_wait"), [("waiting", True), ("running", False), ("terminated", False)])
def test_a_pod_whose_container_is_created_may_wait_for_its_volumes(state: str, may_wait: bool) -> None:
    containers = [{"name": "prepare", "state": {state: {"reason": "ContainerCreating"} if state == "waiting" else {}}}]
    pod = {"metadata": {"name": "pod"}, "status": {"phase": "Pending", "containerStatuses": containers}}
    attempt = view_attempt({"metadata": {"name": "a-prepare-1-abcdef"}}, [pod])
    assert attempt is not None
    assert attempt.waits_for_volumes == may_wait
