"""Whether a namespace has room for another attempt, under the administrator's limits. Pure.

Who waits is served in order: by priority, then by age. Nobody takes what a job before it waits for, so that a large
job is not overtaken for ever by small ones.

A FineTuneJob is at work from its first stage until its result is proven and exported, or it failed; not while it is
suspended. GPUs are counted as the Jobs ask for them, from when those are made until the last of their pods is gone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from finetune_api.conditions import ConditionType, Reason
from finetune_api.jobstatus import FineTuneJobStatus, Room
from finetune_api.meta import JOB_LABEL

from finetune_operator.job.acceptance import Problem
from finetune_operator.kube.kinds import Manifest, controller_uid, label_of
from finetune_operator.settings import Limit
from finetune_operator.state.conditions import raw_true_conditions, true_conditions

Kind = Literal["jobs", "gpus"]
KINDS: tuple[Kind, ...] = ("jobs", "gpus")
"""What a namespace may have of: places for jobs at work, and GPUs."""
Turn = tuple[int, str, str]
"""A job's place among those that wait, the first the least: negative priority, time of creation, name."""
_MOST_NAMES = 5
_ENDS = {"Complete", "Failed"}


@dataclass(frozen=True)
class Occupancy:
    """What the other jobs of a namespace hold, and who of them is the first in line."""

    jobs: frozenset[str] = frozenset()
    """Names of the FineTuneJobs at work."""
    gpus: int = 0
    """GPUs of their Jobs and pods."""
    first: Mapping[Kind, Turn] = field(default_factory=dict)
    """For each kind of room who waits for it, and comes before all others that do."""


def find_excess(namespace: str, limit: Limit, most_gpus: int) -> Problem | None:
    """Return why a job could never begin, whatever the others do; None where it could.

    Args:
        namespace: the job's.
        limit: what the namespace may have.
        most_gpus: as many as the job's largest stage to come asks for.
    """
    hint = "ask the administrator for more (limits in the chart's values)"
    if limit.gpus is not None and most_gpus > limit.gpus:
        return Reason.LIMIT_EXCEEDED, (
            f"compute asks for {most_gpus} GPUs, namespace {namespace} may have {limit.gpus}:"
            f" make another job with fewer, or {hint}"
        )
    if limit.jobs == 0:
        return Reason.LIMIT_EXCEEDED, f"namespace {namespace} may have no job at work: {hint}"
    return None


def needs_place(status: FineTuneJobStatus) -> bool:
    """Tell whether a job that goes on takes another place among those at work: it has not begun, or was suspended."""
    is_suspended = ConditionType.SUSPENDED in true_conditions(status.conditions)
    is_waiting = status.waiting_for is not None and status.waiting_for.jobs > 0
    return status.attempts.prepare == 0 or is_suspended or is_waiting


def find_shortage(namespace: str, limit: Limit, turn: Turn, wants: Room, others: Occupancy) -> Problem | None:
    """Return what a job has to wait for; None where there is room.

    Args:
        namespace: the job's.
        limit: what the namespace may have.
        turn: the job's place among those that wait.
        wants: what it takes when it begins.
        others: what the other jobs hold and wait for.
    """
    rooms: dict[Kind, tuple[str, int, int | None]] = {
        "jobs": ("jobs at work", len(others.jobs), limit.jobs),
        "gpus": ("GPUs", others.gpus, limit.gpus),
    }
    for kind, (unit, held, allowed) in rooms.items():
        wanted: int = getattr(wants, kind)
        if allowed is None or wanted == 0:
            continue
        first = others.first.get(kind)
        is_behind = first is not None and first < turn
        if held + wanted <= allowed and not is_behind:
            continue
        figures = f"namespace {namespace} has {held} of {allowed} {unit}"
        if kind == "jobs" and others.jobs:
            figures += f" ({', '.join(sorted(others.jobs)[:_MOST_NAMES])})"
        if kind == "gpus":
            figures += f", this stage asks for {wanted}"
        behind = f"; FineTuneJob {first[2]} comes first" if first and is_behind else ""
        return Reason.LIMIT_REACHED, figures + behind
    return None


def is_at_work(job: Manifest) -> bool:
    """Tell whether a FineTuneJob has begun, as its status says, and not ended."""
    status = job.get("status") or {}
    conditions = raw_true_conditions(job).keys()
    output = (job.get("spec") or {}).get("output") or {}
    is_exported = ConditionType.EXPORTED in conditions or not any(
        output.get(way) for way in ("merged", "bucket", "hub")
    )
    return (
        (status.get("attempts") or {}).get("prepare", 0) > 0
        and not conditions & {ConditionType.FAILED, ConditionType.SUSPENDED}
        and not (ConditionType.EVALUATED in conditions and is_exported)
        and not (status.get("waitingFor") or {}).get("jobs")
    )


def is_unended(manifest: Manifest) -> bool:
    """Tell whether a stage's Job or pod holds what it asks for."""
    status = manifest.get("status") or {}
    if manifest["kind"] == "Pod":
        return label_of(manifest, JOB_LABEL) is not None and status.get("phase") not in ("Succeeded", "Failed")
    return not raw_true_conditions(manifest).keys() & _ENDS


def wants_of(job: Manifest) -> dict[str, int]:
    """Return what a FineTuneJob waits for, as its status says; nothing where it does not wait."""
    if job["metadata"].get("deletionTimestamp"):
        return {}
    return (job.get("status") or {}).get("waitingFor") or {}


def turn_of(job: Manifest) -> Turn:
    """Return a FineTuneJob's place among those that wait."""
    metadata = job["metadata"]
    priority = (job.get("spec") or {}).get("priority", 0)
    return -priority, metadata.get("creationTimestamp", ""), metadata["name"]


def first_in_line(waiting: Iterable[Manifest], besides: str = "") -> Turn | None:
    """Return whose turn it is of those that wait for the same, one left out; None where nobody waits."""
    turns = (turn_of(job) for job in waiting if job["metadata"]["name"] != besides)
    return min(turns, default=None)


def gpus_of(job: Manifest, resource_name: str) -> int:
    """Return how many GPUs all pods of a Job ask for."""
    spec = job["spec"]
    return int(spec.get("parallelism", 1)) * _gpus_of_pod(spec["template"]["spec"], resource_name)


def _gpus_of_pod(spec: Manifest, resource_name: str) -> int:
    limits = [container.get("resources", {}).get("limits", {}) for container in spec.get("containers", [])]
    return sum(int(one.get(resource_name, 0)) for one in limits)


def build_occupancy(
    mine: str,
    at_work: Iterable[Manifest],
    waiting: Mapping[Kind, Iterable[Manifest]],
    jobs: list[Manifest],
    pods: Iterable[Manifest],
    resource_name: str,
) -> Occupancy:
    """Return what the others hold, and who of them is the first in line.

    Args:
        mine: name of the FineTuneJob that asks.
        at_work: the FineTuneJobs that are at work, by their status.
        waiting: those that wait, for each kind of room.
        jobs: the stages' Jobs that have not ended, also those that are just being made.
        pods: the stages' pods that have not ended.
        resource_name: of a GPU.
    """
    others = [job for job in jobs if label_of(job, JOB_LABEL) != mine]
    known = {job["metadata"].get("uid") for job in others}
    left = [pod for pod in pods if controller_uid(pod) not in known and label_of(pod, JOB_LABEL) != mine]
    begun = {label_of(job, JOB_LABEL) or "" for job in others}
    firsts = {kind: first_in_line(line, besides=mine) for kind, line in waiting.items()}
    return Occupancy(
        jobs=frozenset(({job["metadata"]["name"] for job in at_work} | begun) - {mine}),
        gpus=sum(gpus_of(job, resource_name) for job in others)
        + sum(_gpus_of_pod(pod["spec"], resource_name) for pod in left),
        first={kind: turn for kind, turn in firsts.items() if turn},
    )
