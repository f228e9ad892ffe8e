"""The checks of the runs find each kind of problem."""

from typing import Any

import pytest
from faults.faults import Each, Fault, Kind, Point, Share
from faults.oracle import describe_end, find_difference, find_leaks, find_orphans, find_repeated
from faults.plan import plan_all
from faults.proxy import Write, describe, into_namespace
from faults.world import Scene

JOB = {"kind": "FineTuneJob", "metadata": {"name": "job", "uid": "ours", "resourceVersion": "1"}, "spec": {}}


def stage_job(uid: str, version: int, *, attempt: int = 1, owner: str = "ours", is_over: bool = False) -> Any:
    labels = {"finetune.dev/stage": "Train", "finetune.dev/attempt": str(attempt)}
    owners = [{"kind": "FineTuneJob", "name": "job", "uid": owner, "controller": True}]
    metadata = {"name": uid, "uid": uid, "resourceVersion": str(version), "labels": labels, "ownerReferences": owners}
    conditions = [{"type": "Complete", "status": "True"}] if is_over else []
    return {"metadata": metadata, "spec": {}, "status": {"conditions": conditions}}


def scene(*jobs: Any) -> Scene:
    result = Scene()
    result.apply("FineTuneJob", "ADDED", JOB)
    for job in jobs:
        result.apply("Job", "MODIFIED", job)
    return result


@pytest.mark.parametrize(
    ("jobs", "repeated"),
    [
        ([stage_job("a", 1), stage_job("b", 2)], ["another Job of Train 1"]),
        ([stage_job("a", 1), stage_job("b", 2, attempt=2)], ["training 2 started while another was running"]),
        ([stage_job("a", 1), stage_job("a", 2, is_over=True), stage_job("b", 3, attempt=2)], []),
        ([stage_job("a", 1), stage_job("b", 2, owner="another")], []),
    ],
)
def test_a_repeated_training_is_found(jobs: list[Any], repeated: list[str]) -> None:
    assert find_repeated(scene(*jobs)) == repeated


def test_an_orphan_is_found() -> None:
    orphaned = scene(stage_job("a", 1), stage_job("b", 2, owner="gone"))
    assert find_orphans(orphaned) == ["Job b: its FineTuneJob job does not exist"]


@pytest.mark.parametrize(
    ("path", "sent", "answer", "is_leak"),
    [
        ("/apis/batch/v1/namespaces/run/jobs", {}, stage_job("a", 1), False),
        ("/apis/batch/v1/namespaces/other/jobs", {}, stage_job("a", 1), True),
        ("/apis/batch/v1/namespaces/run/jobs", {}, stage_job("a", 1, owner="another"), True),
        ("/apis/batch/v1/namespaces/run/jobs/b", {}, {"metadata": {}, "details": {"uid": "b"}}, True),
        ("/apis/finetune.dev/v1alpha1/namespaces/run/finetunejobs/job", JOB, JOB, True),
        ("/apis/finetune.dev/v1alpha1/namespaces/run/finetunejobs/job/status", JOB, JOB, False),
        ("/apis/finetune.dev/v1alpha1/namespaces/run/finetunejobs/job/status", {}, JOB, True),
        ("/api/v1/namespaces/run/events", {"involvedObject": {"uid": "never"}}, JOB, True),
    ],
)
def test_a_leaked_write_is_found(path: str, sent: Any, answer: Any, is_leak: bool) -> None:
    point = Point(*describe("POST", path, {}), 1)
    known = scene(stage_job("a", 1), stage_job("b", 2, owner="another"))
    assert bool(find_leaks(known, "run", [Write(point, path, sent, 200, answer)])) == is_leak
    assert not find_leaks(known, "run", [Write(point, path, sent, 409, answer)])


def test_random_fields_are_no_difference() -> None:
    def end(namespace: str, uid: str, status: str) -> Any:
        result = Scene()
        conditions = [{"type": "Ready", "status": status, "lastTransitionTime": f"2026-01-01T00:00:0{namespace[-1]}Z"}]
        metadata = {"name": f"job-train-1-{uid[:6]}", "uid": uid, "resourceVersion": "1"}
        result.apply(
            "FineTuneJob",
            "ADDED",
            {"metadata": metadata, "spec": {"a": namespace}, "status": {"conditions": conditions}},
        )
        return describe_end(result, namespace)

    first = end("run-1", "0a0a0a0a-1111-2222-3333-444444444444", "True")
    assert not find_difference(first, end("run-2", "0b0b0b0b-1111-2222-3333-444444444444", "True"))
    (difference,) = find_difference(first, end("run-2", "0b0b0b0b-1111-2222-3333-444444444444", "False"))
    assert '+    "status": "False"' in difference
    assert find_difference(first, describe_end(Scene(), "run")) == ["missing: FineTuneJob job-train-1-HASH"]


@pytest.mark.parametrize(
    ("method", "path", "query", "described"),
    [
        ("GET", "/api/v1/pods", {}, ("LIST", "pods")),
        ("GET", "/api/v1/pods", {"watch": "true"}, ("WATCH", "pods")),
        ("GET", "/apis/batch/v1", {}, ("GET", "apis+batch+v1")),
        (
            "PUT",
            "/apis/finetune.dev/v1alpha1/namespaces/a/finetunejobs/job/status",
            {},
            ("WRITE", "finetunejobs/status"),
        ),
        ("GET", "/apis/batch/v1/namespaces/a/jobs/job", {}, ("GET", "jobs")),
    ],
)
def test_requests_are_described_by_verb_and_resource(
    method: str, path: str, query: Any, described: tuple[str, str]
) -> None:
    assert describe(method, path, query) == described


def test_a_path_is_limited_to_a_namespace() -> None:
    assert into_namespace("/api/v1/pods", "a") == "/api/v1/namespaces/a/pods"
    assert into_namespace("/apis/batch/v1/jobs", "a") == "/apis/batch/v1/namespaces/a/jobs"
    assert into_namespace("/apis/batch/v1", "a") == "/apis/batch/v1"


def test_every_fault_is_planned_and_can_be_parsed() -> None:
    points = [Point(verb, "jobs", number) for verb in ("WRITE", "LIST", "WATCH", "MODIFIED") for number in range(1, 31)]
    faults = [fault for _, fault in plan_all({"serve": points}, 1)]
    assert {fault.kind for fault in faults} == set(Kind)
    assert [Fault.parse(*str(fault).split()) for fault in faults] == faults
    seeds = [plan_all({"serve": points}, seed) for seed in (1, 2)]
    crashes = [fault.where for runs in seeds for _, fault in runs if fault.kind is Kind.CRASH_AFTER]
    assert sorted(map(str, crashes)) == sorted(str(point) for point in points if point.is_write)
    for kind in set(Kind) - {Kind.TWO}:
        everywhere = [Fault(kind, Share(1)), Fault(kind, Each())]
        assert all(any(fault.strikes(point, is_retry=False, seed=1) for point in points) for fault in everywhere), kind


def test_a_shared_start_of_two_lifecycles_gets_faults_in_one_of_them() -> None:
    points = [Point("WRITE", "jobs", number) for number in range(1, 13)]
    runs = plan_all({"server": points[:6], "shared": points}, 1)
    crashes = [fault.where for lifecycle, fault in runs if lifecycle == "shared" and fault.kind is Kind.CRASH_BEFORE]
    assert len(crashes) == 3
    assert set(crashes) <= set(points[6:])
