"""What the jobs of one namespace hold and wait for under its limits: raw manifests in, facts out. Pure.

A FineTuneJob is at work from its first stage until its result is proven and exported, or it failed; not while it is
suspended. GPUs are counted as the Jobs ask for them, from when those are made until the last of their pods is gone.
"""

from collections.abc import Iterable, Mapping

from finetune_api.conditions import ConditionType
from finetune_api.meta import JOB_LABEL

from finetune_operator.kinds import Manifest, controller_uid, label_of
from finetune_operator.limits import Kind, Occupancy, Turn

_ENDS = {"Complete", "Failed"}


def is_at_work(job: Manifest) -> bool:
    """Tell whether a FineTuneJob has begun, as its status says, and not ended."""
    status = job.get("status") or {}
    over = {one["type"] for one in status.get("conditions", []) if one["status"] == "True"}
    output = (job.get("spec") or {}).get("output") or {}
    is_exported = ConditionType.EXPORTED in over or not any(output.get(way) for way in ("merged", "bucket", "hub"))
    return (
        (status.get("attempts") or {}).get("prepare", 0) > 0
        and not over & {ConditionType.FAILED, ConditionType.SUSPENDED}
        and not (ConditionType.EVALUATED in over and is_exported)
        and not (status.get("waitingFor") or {}).get("jobs")
    )


def is_unended(manifest: Manifest) -> bool:
    """Tell whether a stage's Job or pod holds what it asks for."""
    status = manifest.get("status") or {}
    if manifest["kind"] == "Pod":
        return label_of(manifest, JOB_LABEL) is not None and status.get("phase") not in ("Succeeded", "Failed")
    return not any(one["type"] in _ENDS and one["status"] == "True" for one in status.get("conditions", []))


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
