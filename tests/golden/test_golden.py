"""The operator's decisions as readable scenarios: an observed world and the expected outcome.

Each `<case>.yaml` holds the observed world (the object, its children and pods as the API server returns them, and the
answers of the pods) and, below a line of `---`, the outcome of the plan. `cases.py` describes the format. `pytest
tests/golden --rewrite-golden` rewrites the outcome of every case; review the difference.
"""

from datetime import UTC, datetime
from typing import Any

import pytest
from finetune_api.contract.routes import LoadedReport
from finetune_api.jobstatus import TrainingProgress
from finetune_api.meta import ROUTES_ANNOTATION
from finetune_operator.job.evaluation import find_incumbent
from finetune_operator.job.plan import plan_job
from finetune_operator.job.quota import (
    QUOTA_RESOURCES,
    QuotaUsage,
    count_usage,
    is_active,
    is_unfinished,
    quota_request_of,
)
from finetune_operator.job.snapshot import JobSnapshot
from finetune_operator.server.plan import ServerSnapshot, plan_server
from finetune_operator.server.routes import find_newer_job
from finetune_operator.settings import Limits, Settings
from finetune_operator.state.child_jobs import view_attempt, view_server_pod
from finetune_operator.state.conditions import Event
from finetune_operator.state.plan import Plan
from finetune_operator.state.views import view_job, view_server
from golden.cases import GOLDEN

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SETTINGS = Settings.model_validate(
    {
        "images": {"trainer": "trainer:1", "serving": "serving:1"},
        # Policies are the same for all jobs: tests/unit/operator/manifests/test_isolation.py covers them.
        "network": {"isolateJobs": False},
        "sources": {"httpsHosts": ["data.example.com", "*.mirror.example.com"]},
        "gpu": {
            "nodeSelector": {"gpu": "yes"},
            "kinds": [
                {"nodeSelector": {"gpu": "old"}, "memory": "16Gi", "tflops": 65},
                {"memory": "80Gi", "tflops": 989, "hourPrice": 3},
            ],
        },
    }
)


@pytest.fixture(scope="session", autouse=True)
def _rewrite(request: pytest.FixtureRequest) -> None:
    """Rewrite the outcomes of all cases where the flag is given: cases share shapes."""
    if request.config.getoption("--rewrite-golden"):
        GOLDEN.rewrite(decide)


@pytest.mark.parametrize("case", GOLDEN.list_names())
def test_golden(case: str) -> None:
    expected_children, expected_outcome = GOLDEN.read_expected(case)
    children, outcome = decide(GOLDEN.read_observed(case))
    assert children == expected_children
    assert outcome == expected_outcome


def decide(observed: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the children and the outcome of the plan for an observed world."""
    plan = make_plan(observed)
    outcome = _outcome(plan.status, plan.events, plan.requeue_after)
    if plan.pod_annotations:
        outcome["annotate"] = [[name, annotations] for name, annotations in plan.pod_annotations]
    if plan.deletions:
        outcome["delete"] = [f"{ref.kind.name} {ref.name} {ref.uid} {ref.version}" for ref in plan.deletions]
    return list(plan.desired), outcome


def make_plan(observed: dict[str, Any]) -> Plan:
    """Return the plan for an observed world, of its job or of its server where there is no job."""
    if "server" in observed and "job" not in observed:
        return _plan_server(observed)
    job = view_job(observed["job"])
    attempts = [
        attempt
        for child in observed.get("children", [])
        if (attempt := view_attempt(child["job"], child.get("pods", []))) is not None
    ]
    server = view_server(observed["server"]) if observed.get("server") else None
    served_jobs = [view_job(served) for served in observed.get("servedJobs", [])]
    snapshot = JobSnapshot(
        attempts=attempts,
        parent=view_job(observed["parent"]) if observed.get("parent") else None,
        server=server,
        controls_server=observed.get("controlsServer", False),
        server_is_busy=observed.get("serverIsBusy", False),
        has_default_claim=observed.get("hasDefaultClaim", False),
        missing_volumes=observed.get("missingVolumes", []),
        unbound_claims=observed.get("unboundClaims", []),
        progress=TrainingProgress.model_validate(observed["progress"]) if observed.get("progress") else None,
        incumbent=find_incumbent(job.spec.serving if job.spec else None, server, served_jobs),
        newer_job=observed.get("newerJob") or find_newer_job(job, [job, *served_jobs]),
        lingering_pods=observed.get("lingeringPods", []),
        other_usage=_count_usage(observed),
        has_dependents=observed.get("hasDependents", False),
    )
    settings = SETTINGS.model_copy(update={"limits": Limits.model_validate(observed.get("limits", {}))})
    return plan_job(job, snapshot, settings, NOW)


def _count_usage(observed: dict[str, Any]) -> QuotaUsage:
    """Return the quota that the other jobs of the namespace use and wait for."""
    others = observed.get("others", [])
    jobs = [item for item in others if item["kind"] == "FineTuneJob"]
    return count_usage(
        observed["job"]["metadata"]["name"],
        [job for job in jobs if is_active(job)],
        {resource: [job for job in jobs if quota_request_of(job).get(resource)] for resource in QUOTA_RESOURCES},
        [item for item in others if item["kind"] == "Job" and is_unfinished(item)],
        [item for item in others if item["kind"] == "Pod" and is_unfinished(item)],
        SETTINGS.gpu.resource_name,
    )


def _plan_server(observed: dict[str, Any]) -> Plan:
    pods = [
        view_server_pod(
            observation["pod"],
            ROUTES_ANNOTATION,
            LoadedReport.model_validate(observation["loaded"]) if observation.get("loaded") else None,
            not_yet_observed=observation.get("notYetObserved", False),
        )
        for observation in observed.get("pods", [])
    ]
    snapshot = ServerSnapshot([view_job(job) for job in observed.get("jobs", [])], pods, observed.get("conflict", ""))
    return plan_server(view_server(observed["server"]), snapshot, SETTINGS, NOW)


def _outcome(status: dict[str, Any], events: tuple[Event, ...], again_after: float | None) -> dict[str, Any]:
    lines = [f"{event.type} {event.reason}: {event.message}" for event in events]
    return {"status": status, "events": lines, "againAfter": again_after}
