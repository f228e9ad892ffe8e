"""Whether a namespace has enough quota for another attempt, under the administrator's limits. No I/O.

Waiting jobs are ordered by priority, then by age. A job never overtakes one ahead of it in the queue, so that small
jobs cannot starve a large one.

A FineTuneJob is active from its first stage until its result has passed its gates and is exported, or until it failed;
not while it is suspended. GPUs count as the Jobs request them, from the creation of a Job until the last of its pods is
gone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from finetune_api.conditions import ConditionType, Reason
from finetune_api.jobstatus import FineTuneJobStatus, QuotaRequest
from finetune_api.meta import JOB_LABEL

from finetune_operator.job.acceptance import Problem
from finetune_operator.kube.kinds import Manifest, controller_uid, label_of
from finetune_operator.settings import Limit
from finetune_operator.state.conditions import raw_true_conditions, true_conditions

QuotaResource = Literal["jobs", "gpus"]
QUOTA_RESOURCES: tuple[QuotaResource, ...] = ("jobs", "gpus")
"""What a namespace can have limits of: active FineTuneJobs, and GPUs."""
QueuePosition = tuple[int, str, str]
"""Sort key of a waiting job, the first in the queue has the smallest: negative priority, creation time, name."""
_MAX_NAMES = 5
_FINISHED = {"Complete", "Failed"}


@dataclass(frozen=True)
class QuotaUsage:
    """The quota that the other jobs of a namespace use, and who of them is first in the queue."""

    jobs: frozenset[str] = frozenset()
    """Names of the active FineTuneJobs."""
    gpus: int = 0
    """GPUs of their Jobs and pods."""
    first: Mapping[QuotaResource, QueuePosition] = field(default_factory=dict)
    """For each resource that another job waits for: the position of the first one in the queue."""


def check_over_quota(namespace: str, limit: Limit, max_gpus: int) -> Problem | None:
    """Return why a job can never start, whatever the other jobs use; None if it can.

    Args:
        namespace: the job's namespace.
        limit: the limits of the namespace.
        max_gpus: GPUs that the largest remaining stage of the job requests.
    """
    hint = "ask the administrator to raise it (limits in the chart's values)"
    if limit.gpus is not None and max_gpus > limit.gpus:
        return Reason.LIMIT_EXCEEDED, (
            f"compute requests {max_gpus} GPUs, the limit of namespace {namespace} is {limit.gpus}:"
            f" create another job with fewer, or {hint}"
        )
    if limit.jobs == 0:
        return Reason.LIMIT_EXCEEDED, f"the limit of namespace {namespace} is 0 active jobs: {hint}"
    return None


def needs_job_quota(status: FineTuneJobStatus) -> bool:
    """Return whether a job becomes active with its next attempt: it has not started, or was suspended."""
    is_suspended = ConditionType.SUSPENDED in true_conditions(status.conditions)
    is_waiting = status.waiting_for is not None and status.waiting_for.jobs > 0
    return status.attempts.prepare == 0 or is_suspended or is_waiting


def check_insufficient_quota(
    namespace: str, limit: Limit, position: QueuePosition, request: QuotaRequest, others: QuotaUsage
) -> Problem | None:
    """Return which quota a job has to wait for; None if it may start.

    Args:
        namespace: the job's namespace.
        limit: the limits of the namespace.
        position: the job's position in the queue.
        request: the quota that the job uses once it starts.
        others: the quota that the other jobs use and wait for.
    """
    resources: dict[QuotaResource, tuple[str, int, int | None]] = {
        "jobs": ("active jobs", len(others.jobs), limit.jobs),
        "gpus": ("GPUs", others.gpus, limit.gpus),
    }
    for resource, (unit, used, allowed) in resources.items():
        requested: int = getattr(request, resource)
        if allowed is None or requested == 0:
            continue
        first = others.first.get(resource)
        is_behind = first is not None and first < position
        if used + requested <= allowed and not is_behind:
            continue
        figures = f"namespace {namespace} uses {used} of {allowed} {unit}"
        if resource == "jobs" and others.jobs:
            figures += f" ({', '.join(sorted(others.jobs)[:_MAX_NAMES])})"
        if resource == "gpus":
            figures += f", this stage requests {requested}"
        ahead = f"; FineTuneJob {first[2]} is ahead in the queue" if first and is_behind else ""
        return Reason.LIMIT_REACHED, figures + ahead
    return None


def is_active(job: Manifest) -> bool:
    """Return whether a FineTuneJob uses quota of active jobs: by its status it has started and not ended."""
    status = job.get("status") or {}
    conditions = raw_true_conditions(job).keys()
    output = (job.get("spec") or {}).get("output") or {}
    is_exported = ConditionType.EXPORTED in conditions or not any(
        output.get(destination) for destination in ("merged", "bucket", "hub")
    )
    return (
        (status.get("attempts") or {}).get("prepare", 0) > 0
        and not conditions & {ConditionType.FAILED, ConditionType.SUSPENDED}
        and not (ConditionType.EVALUATED in conditions and is_exported)
        and not (status.get("waitingFor") or {}).get("jobs")
    )


def is_unfinished(manifest: Manifest) -> bool:
    """Return whether a stage's Job or pod still uses the GPUs that it requests."""
    if manifest["kind"] == "Pod":
        phase = (manifest.get("status") or {}).get("phase")
        return label_of(manifest, JOB_LABEL) is not None and phase not in ("Succeeded", "Failed")
    return not raw_true_conditions(manifest).keys() & _FINISHED


def quota_request_of(job: Manifest) -> dict[str, int]:
    """Return the quota that a FineTuneJob waits for, by its status; empty if it does not wait."""
    if job["metadata"].get("deletionTimestamp"):
        return {}
    return (job.get("status") or {}).get("waitingFor") or {}


def queue_position_of(job: Manifest) -> QueuePosition:
    """Return the position of a FineTuneJob among the waiting ones."""
    metadata = job["metadata"]
    priority = (job.get("spec") or {}).get("priority", 0)
    return -priority, metadata.get("creationTimestamp", ""), metadata["name"]


def first_in_queue(waiting: Iterable[Manifest], excluding: str = "") -> QueuePosition | None:
    """Return the position of the first waiting FineTuneJob other than `excluding`; None if there is none."""
    positions = (queue_position_of(job) for job in waiting if job["metadata"]["name"] != excluding)
    return min(positions, default=None)


def count_gpus(job: Manifest, resource_name: str) -> int:
    """Return how many GPUs all pods of a Job request."""
    spec = job["spec"]
    return int(spec.get("parallelism", 1)) * _count_pod_gpus(spec["template"]["spec"], resource_name)


def _count_pod_gpus(spec: Manifest, resource_name: str) -> int:
    limits = [container.get("resources", {}).get("limits", {}) for container in spec.get("containers", [])]
    return sum(int(limit.get(resource_name, 0)) for limit in limits)


def count_usage(
    excluding: str,
    active: Iterable[Manifest],
    waiting: Mapping[QuotaResource, Iterable[Manifest]],
    jobs: list[Manifest],
    pods: Iterable[Manifest],
    resource_name: str,
) -> QuotaUsage:
    """Return the quota that the other jobs of a namespace use, and who of them is first in the queue.

    Args:
        excluding: name of the FineTuneJob that requests quota.
        active: the FineTuneJobs that are active by their status.
        waiting: the FineTuneJobs that wait, for each resource.
        jobs: the stages' unfinished Jobs, including those that are being created.
        pods: the stages' unfinished pods.
        resource_name: resource name of a GPU.
    """
    others = [job for job in jobs if label_of(job, JOB_LABEL) != excluding]
    uids = {job["metadata"].get("uid") for job in others}
    lingering = [pod for pod in pods if controller_uid(pod) not in uids and label_of(pod, JOB_LABEL) != excluding]
    started = {label_of(job, JOB_LABEL) or "" for job in others}
    firsts = {resource: first_in_queue(queue, excluding) for resource, queue in waiting.items()}
    return QuotaUsage(
        jobs=frozenset(({job["metadata"]["name"] for job in active} | started) - {excluding}),
        gpus=sum(count_gpus(job, resource_name) for job in others)
        + sum(_count_pod_gpus(pod["spec"], resource_name) for pod in lingering),
        first={resource: position for resource, position in firsts.items() if position},
    )
