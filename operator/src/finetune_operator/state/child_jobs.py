"""Child Jobs and pods as typed values: the attempts of a FineTuneJob, the pods of a ModelServer."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from finetune_api.artifact import Incumbent
from finetune_api.contract.commands import read_incumbent, read_server_name
from finetune_api.contract.exit_codes import ExitCode
from finetune_api.contract.reports import StageReport, parse_report
from finetune_api.contract.routes import LoadedReport
from finetune_api.jobstatus import MAX_ATTEMPTS, EvaluationServer
from finetune_api.meta import QUEUE_LABEL
from finetune_api.model import Time
from finetune_api.references import SecretRef
from finetune_api.stage import Stage
from pydantic import TypeAdapter, ValidationError

from finetune_operator.kube.kinds import Manifest, label_of
from finetune_operator.state.conditions import raw_true_conditions

API_KEY = "OPENAI_API_KEY"
"""Environment variable of an evaluation with the API key of the server that it evaluates on."""
IMAGE_PULL_ERRORS = frozenset({"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName"})
"""The kubelet's reasons why a container waits for its image."""
_INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
_TIME = TypeAdapter(Time)
_ATTEMPT_NAME = re.compile(rf"-(?P<stage>{'|'.join(Stage).lower()})-(?P<number>[0-9]{{1,5}})-[0-9a-f]{{6}}$")


class AttemptState(StrEnum):
    """The state of an attempt. The cluster causes Disrupted, the program causes Failed."""

    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DISRUPTED = "Disrupted"


@dataclass(frozen=True)
class Attempt:
    """An attempt at a stage of a FineTuneJob: one child Job with its pods."""

    stage: Stage
    number: int
    name: str
    state: AttemptState
    uid: str = ""
    version: str = ""
    """The Job's resource version."""
    is_terminating: bool = False
    """Whether the Job is being deleted and waits for its pods to end."""
    queue: str | None = None
    """The Kueue queue in which the suspended Job waits, empty if unknown; None if the Job is not suspended."""
    pods_ended: bool = False
    """Whether all its pods have ended, so that the Job is about to end."""
    started: datetime | None = None
    has_pod: bool = True
    """Whether the Job controller has created a pod: a quota or a policy may forbid it."""
    finished: datetime | None = None
    report: StageReport | None = None
    exit_code: int | None = None
    out_of_memory: bool = False
    waiting: str = ""
    """Why a pod does not run yet: reason and message of the kubelet or the scheduler; empty if it runs."""
    waits_for_volumes: bool = False
    """Whether a pod may be waiting for its volumes: it is unschedulable because of a claim, or a node sets it up."""
    pod_ip: str | None = None
    """Address of a running pod."""
    incumbent: Incumbent | None = None
    """The incumbent in the arguments of an evaluation."""
    server: EvaluationServer | None = None
    """The ModelServer in the arguments of an evaluation."""


@dataclass(frozen=True)
class ServerPod:
    """A pod of a ModelServer."""

    name: str
    ready: bool
    address: str | None
    routes_annotation: str | None
    loaded: LoadedReport | None = None
    """What it reports as loaded; None if it does not respond."""
    not_yet_observed: bool = False
    """Whether the operator has just started and has no report of the pod yet: the server's status stays valid."""
    waiting: str = ""


def attempt_of(job: Manifest) -> tuple[Stage, int] | None:
    """Return the stage and the number of the attempt that a child Job runs; None if it runs none.

    Reads them from the name, since users can change labels.
    """
    match = _ATTEMPT_NAME.search(job["metadata"]["name"])
    if match is None or int(match["number"]) > MAX_ATTEMPTS:
        return None
    return Stage(match["stage"].capitalize()), int(match["number"])


def view_attempt(job: Manifest, pods: list[Manifest]) -> Attempt | None:
    """Return the attempt of a child Job with its pods; None if the name is not that of an attempt."""
    stage_and_number = attempt_of(job)
    if stage_and_number is None:
        return None
    stage, number = stage_and_number
    pod = _decisive_pod(pods)
    status = job.get("status", {})
    conditions = raw_true_conditions(job)
    terminated = _terminated(pod)
    pods_missing = len(pods) < job.get("spec", {}).get("parallelism", 1)
    return Attempt(
        stage=stage,
        number=number,
        name=job["metadata"]["name"],
        uid=job["metadata"].get("uid", ""),
        version=job["metadata"].get("resourceVersion", ""),
        state=AttemptState.ACTIVE
        if any(map(_may_run, pods))
        else _state(conditions, pod, terminated, pods_missing=pods_missing),
        is_terminating="deletionTimestamp" in job["metadata"],
        queue=_queue(job, conditions),
        pods_ended=not pods_missing and all(map(_terminated, pods)),
        started=_time(status.get("startTime")),
        has_pod=bool(pods),
        finished=_time(status.get("completionTime") or conditions.get("Failed", {}).get("lastTransitionTime")),
        report=parse_report(terminated.get("message", "")),
        exit_code=terminated.get("exitCode"),
        out_of_memory=terminated.get("reason") == "OOMKilled",
        waiting=next(filter(None, map(_waiting, pods)), ""),
        waits_for_volumes=any(map(_waits_for_volumes, pods)),
        pod_ip=running_ip(pod),
        incumbent=read_incumbent(_arguments(job)) if stage == Stage.EVALUATE else None,
        server=_read_server(job) if stage == Stage.EVALUATE else None,
    )


def _queue(job: Manifest, conditions: dict[str, Any]) -> str | None:
    """Return the queue of a suspended Job: Kueue suspends it until it has quota, and again to preempt it."""
    is_suspended = job.get("spec", {}).get("suspend") or "Suspended" in conditions
    return label_of(job, QUEUE_LABEL) or "" if is_suspended else None


def _read_server(job: Manifest) -> EvaluationServer | None:
    """Return the ModelServer that an evaluation uses; None if it uses none."""
    name = read_server_name(_arguments(job))
    if not name:
        return None
    try:
        for container in _containers(job):
            for variable in container.get("env", []):
                if variable["name"] == API_KEY:
                    key = variable["valueFrom"]["secretKeyRef"]
                    return EvaluationServer(name=name, secret_ref=SecretRef(name=key["name"]), key=key["key"])
        return EvaluationServer(name=name)
    except (KeyError, ValidationError):
        return None


def _arguments(job: Manifest) -> list[str]:
    return [argument for container in _containers(job) for argument in container.get("args", [])]


def _containers(job: Manifest) -> list[Manifest]:
    return list(job.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []))


def _decisive_pod(pods: list[Manifest]) -> Manifest | None:
    """Return the pod whose result is that of the attempt: the first that failed, else the one with index 0.

    On several nodes the first failure is the cause; the other pods only lost their peer.
    """
    failed = [pod for pod in pods if _terminated(pod).get("exitCode")]
    if failed:
        return min(failed, key=lambda pod: str(_terminated(pod).get("finishedAt")))
    return min(pods, key=lambda pod: pod["metadata"].get("annotations", {}).get(_INDEX_ANNOTATION, "0"), default=None)


def view_server_pod(
    pod: Manifest, annotation: str, loaded: LoadedReport | None, *, not_yet_observed: bool
) -> ServerPod:
    """Return a pod of a ModelServer with its report; `annotation` is the one with the digest of its routes."""
    ready = "Ready" in raw_true_conditions(pod) and not pod["metadata"].get("deletionTimestamp")
    return ServerPod(
        name=pod["metadata"]["name"],
        ready=ready,
        address=running_ip(pod),
        routes_annotation=pod["metadata"].get("annotations", {}).get(annotation),
        loaded=loaded,
        not_yet_observed=not_yet_observed,
        waiting=_waiting(pod),
    )


def _state(
    conditions: dict[str, Any], pod: Manifest | None, terminated: dict[str, Any], *, pods_missing: bool
) -> AttemptState:
    """Return the state of an attempt without active pods; `pods_missing`: it has fewer pods than its parallelism."""
    if "Complete" in conditions:
        return AttemptState.SUCCEEDED
    if "Failed" not in conditions:
        return AttemptState.ACTIVE
    if pod is None or pods_missing or "PodFailurePolicy" in conditions["Failed"].get("reason", ""):
        # A pod was deleted, or the pod failure policy matched the DisruptionTarget condition.
        return AttemptState.DISRUPTED
    if terminated.get("exitCode") == ExitCode.STOPPED or "DisruptionTarget" in raw_true_conditions(pod):
        return AttemptState.DISRUPTED
    if pod["metadata"].get("deletionTimestamp") or not terminated:
        return AttemptState.DISRUPTED
    return AttemptState.FAILED


def _may_run(pod: Manifest) -> bool:
    """Return whether the cache has not seen the pod end.

    A Job ends after its pods, so the pod's last event must follow. Without it a successful training would have no
    report, and a failed one would count as disrupted.
    """
    is_started = pod.get("status", {}).get("phase") in ("Pending", "Running")
    return (
        is_started
        and not pod["metadata"].get("deletionTimestamp")
        and "DisruptionTarget" not in raw_true_conditions(pod)
    )


def _terminated(pod: Manifest | None) -> dict[str, Any]:
    for status in (pod or {}).get("status", {}).get("containerStatuses", []):
        terminated = status.get("state", {}).get("terminated")
        if terminated:
            return dict(terminated)
    return {}


def _waiting(pod: Manifest | None) -> str:
    """Return why a pod does not run, as `Reason: message`; empty if it runs or is about to.

    The message about a container that restarts is what it left when it ended, if it left one. Until it is ready again,
    it did not run yet.
    """
    if pod is None:
        return ""
    status = pod.get("status", {})
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        failure = container.get("lastState", {}).get("terminated", {}).get("message")
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {failure or waiting.get('message', '')}"
        if failure and not container.get("ready"):
            return f"Restarted: {failure}"
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return ""


def _waits_for_volumes(pod: Manifest) -> bool:
    """Return whether a pod may be waiting for its volumes. Its status does not say so while its node mounts them."""
    containers = pod.get("status", {}).get("containerStatuses", [])
    reasons = {container.get("state", {}).get("waiting", {}).get("reason") for container in containers}
    if "ContainerCreating" in reasons:
        return True
    reason, _, message = _waiting(pod).partition(": ")
    return reason == "Unschedulable" and "persistentvolumeclaim" in message.lower()


def running_ip(pod: Manifest | None) -> str | None:
    """Return the address of a running pod; None if it does not run."""
    status = (pod or {}).get("status", {})
    if status.get("phase") == "Running" and isinstance(status.get("podIP"), str):
        return str(status["podIP"])
    return None


def _time(text: str | None) -> datetime | None:
    """Return a time of the API server; None if Python's calendar lacks it, such as year 0 or a leap second."""
    try:
        return _TIME.validate_python(text) if text else None
    except ValidationError:
        return None
