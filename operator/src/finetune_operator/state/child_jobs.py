"""What Jobs and pods say of the stages of a job and of a server, as values: raw manifests in, facts out.

Pure. Decisions are made elsewhere, from these facts alone.
"""

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
"""Where an evaluation finds the key for that server."""
IMAGE_PULL_ERRORS = frozenset({"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName"})
"""The kubelet's reasons why a container waits for its image."""
_INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
_TIME = TypeAdapter(Time)
_ATTEMPT_NAME = re.compile(rf"-(?P<stage>{'|'.join(Stage).lower()})-(?P<number>[0-9]{{1,5}})-[0-9a-f]{{6}}$")


class State(StrEnum):
    """How an attempt stands. Disrupted is the cluster's doing, Failed the program's."""

    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DISRUPTED = "Disrupted"


@dataclass(frozen=True)
class Attempt:
    """One child Job of a FineTuneJob with its newest pod."""

    stage: Stage
    number: int
    name: str
    state: State
    uid: str = ""
    version: str = ""
    """The Job's resource version."""
    is_going: bool = False
    """Whether the Job is deleted and waits for its pods to end."""
    queue: str | None = None
    """Kueue's queue that the Job waits in, suspended; None where it does not wait."""
    pods_ended: bool = False
    """Whether all its pods ended, so that the Job is about to."""
    started: datetime | None = None
    has_pod: bool = True
    """Whether the Job's controller has made a pod: a quota or a policy may forbid it."""
    finished: datetime | None = None
    report: StageReport | None = None
    exit_code: int | None = None
    out_of_memory: bool = False
    waiting: str = ""
    """Why the pod does not run yet: the kubelet's or the scheduler's reason and message."""
    pod_ip: str | None = None
    """Address of a running pod."""
    incumbent: Incumbent | None = None
    """What an evaluation compares with, as it was told."""
    server: EvaluationServer | None = None
    """The ModelServer that an evaluation asks, as it was told."""


@dataclass(frozen=True)
class ServerPod:
    """A pod of a ModelServer and what it says is loaded; None where it did not answer."""

    name: str
    ready: bool
    address: str | None
    routes_annotation: str | None
    loaded: LoadedReport | None = None
    is_unheard: bool = False
    """Whether this operator has asked it for a moment only, and in vain: what its server said before still stands."""
    waiting: str = ""


def attempt_of(job: Manifest) -> tuple[Stage, int] | None:
    """Return the stage and the number of the attempt that a child Job is for; None where it is for none.

    Its name says so: labels anybody may change.
    """
    found = _ATTEMPT_NAME.search(job["metadata"]["name"])
    if found is None or int(found["number"]) > MAX_ATTEMPTS:
        return None
    return Stage(found["stage"].capitalize()), int(found["number"])


def view_attempt(job: Manifest, pods: list[Manifest]) -> Attempt | None:
    """Read a child Job with its pods; None where its name is none of ours."""
    named = attempt_of(job)
    if named is None:
        return None
    stage, number = named
    pod = _telling_pod(pods)
    status = job.get("status", {})
    conditions = raw_true_conditions(job)
    terminated = _terminated(pod)
    vanished = len(pods) < job.get("spec", {}).get("parallelism", 1)
    return Attempt(
        stage=stage,
        number=number,
        name=job["metadata"]["name"],
        uid=job["metadata"].get("uid", ""),
        version=job["metadata"].get("resourceVersion", ""),
        state=State.ACTIVE if any(map(_runs_on, pods)) else _state(conditions, pod, terminated, vanished=vanished),
        is_going="deletionTimestamp" in job["metadata"],
        queue=_queue(job, conditions),
        pods_ended=not vanished and all(map(_terminated, pods)),
        started=_time(status.get("startTime")),
        has_pod=bool(pods),
        finished=_time(status.get("completionTime") or conditions.get("Failed", {}).get("lastTransitionTime")),
        report=parse_report(terminated.get("message", "")),
        exit_code=terminated.get("exitCode"),
        out_of_memory=terminated.get("reason") == "OOMKilled",
        waiting=next(filter(None, map(_waiting, pods)), ""),
        pod_ip=running_ip(pod),
        incumbent=read_incumbent(_arguments(job)) if stage == Stage.EVALUATE else None,
        server=_read_server(job) if stage == Stage.EVALUATE else None,
    )


def _queue(job: Manifest, conditions: dict[str, Any]) -> str | None:
    """Return where a Job waits: Kueue suspends it until there is room, and again when it must give way."""
    is_suspended = job.get("spec", {}).get("suspend") or "Suspended" in conditions
    return label_of(job, QUEUE_LABEL) or "" if is_suspended else None


def _read_server(job: Manifest) -> EvaluationServer | None:
    """Return the ModelServer that an evaluation asks; None where it asks none."""
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


def _telling_pod(pods: list[Manifest]) -> Manifest | None:
    """Return the pod that says how an attempt went: the first that failed, else the one that leads the others.

    Of several nodes the first failure is the cause; the others only lost their peer.
    """
    failed = [pod for pod in pods if _terminated(pod).get("exitCode")]
    if failed:
        return min(failed, key=lambda pod: str(_terminated(pod).get("finishedAt")))
    return min(pods, key=lambda pod: pod["metadata"].get("annotations", {}).get(_INDEX_ANNOTATION, "0"), default=None)


def view_server_pod(pod: Manifest, annotation: str, loaded: LoadedReport | None, *, is_unheard: bool) -> ServerPod:
    """Read a pod of a ModelServer."""
    ready = "Ready" in raw_true_conditions(pod) and not pod["metadata"].get("deletionTimestamp")
    return ServerPod(
        name=pod["metadata"]["name"],
        ready=ready,
        address=running_ip(pod),
        routes_annotation=pod["metadata"].get("annotations", {}).get(annotation),
        loaded=loaded,
        is_unheard=is_unheard,
        waiting=_waiting(pod),
    )


def _state(conditions: dict[str, Any], pod: Manifest | None, terminated: dict[str, Any], *, vanished: bool) -> State:
    """Return how an attempt stands; `vanished` tells that there are fewer pods than it had."""
    if "Complete" in conditions:
        return State.SUCCEEDED
    if "Failed" not in conditions:
        return State.ACTIVE
    if pod is None or vanished or "PodFailurePolicy" in conditions["Failed"].get("reason", ""):
        # A pod was taken away, or the Job's policy met the DisruptionTarget condition.
        return State.DISRUPTED
    if terminated.get("exitCode") == ExitCode.STOPPED or "DisruptionTarget" in raw_true_conditions(pod):
        return State.DISRUPTED
    if pod["metadata"].get("deletionTimestamp") or not terminated:
        return State.DISRUPTED
    return State.FAILED


def _runs_on(pod: Manifest) -> bool:
    """Tell whether a pod has not ended as far as is known. A Job ends after its pods, so theirs is to be heard.

    Judged before that, a training that ended well would have left no report, and one that failed would be disrupted.
    """
    is_going = pod.get("status", {}).get("phase") in ("Pending", "Running")
    return (
        is_going and not pod["metadata"].get("deletionTimestamp") and "DisruptionTarget" not in raw_true_conditions(pod)
    )


def _terminated(pod: Manifest | None) -> dict[str, Any]:
    for status in (pod or {}).get("status", {}).get("containerStatuses", []):
        terminated = status.get("state", {}).get("terminated")
        if terminated:
            return dict(terminated)
    return {}


def _waiting(pod: Manifest | None) -> str:
    """Say why a pod does not run, as `Reason: message`; empty where it runs or is about to."""
    if pod is None:
        return ""
    status = pod.get("status", {})
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}"
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return ""


def running_ip(pod: Manifest | None) -> str | None:
    """Return the address of a pod that runs."""
    status = (pod or {}).get("status", {})
    if status.get("phase") == "Running" and isinstance(status.get("podIP"), str):
        return str(status["podIP"])
    return None


def _time(text: str | None) -> datetime | None:
    """Read a time of the API server's; it takes years that no calendar here has."""
    try:
        return _TIME.validate_python(text) if text else None
    except ValidationError:
        return None
