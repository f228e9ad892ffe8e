"""What follows from the attempts at a stage: begin one, wait, go on, or give up.

Pure. A failure that would come again is not tried again; a disruption costs no retry.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.contract.reports import ExitCode, StageReport
from finetune_api.jobstatus import MAX_ATTEMPTS, Attempts
from finetune_api.stage import Stage

from finetune_operator.state.child_jobs import IMAGE_PULL_ERRORS, Attempt, State

_PERMANENT = {
    Reason.DATASET_INVALID,
    Reason.DATASET_NOT_FOUND,
    Reason.PREPARED_DATA_GONE,
    Reason.OUTPUT_NOT_FOUND,
    Reason.MODEL_NOT_FOUND,
    Reason.MODEL_UNSUPPORTED,
    Reason.MODEL_UNSAFE,
    Reason.MODEL_DAMAGED,
    Reason.TEMPLATE_INVALID,
    Reason.ACCESS_DENIED,
    Reason.TERMS_NOT_ACCEPTED,
    Reason.VOLUME_ACCESS_DENIED,
    Reason.INVALID_SPEC,
    Reason.ADAPTER_REFUSED,
    Reason.NOT_SERVABLE,
    Reason.GPU_TOO_SMALL,
    Reason.OUT_OF_MEMORY,
    Reason.GPU_OUT_OF_MEMORY,
    Reason.LOSS_NOT_FINITE,
}
_FAILED = {
    Stage.PREPARE: Reason.PREPARE_FAILED,
    Stage.TRAIN: Reason.TRAINING_FAILED,
    Stage.EVALUATE: Reason.EVALUATION_FAILED,
    Stage.EXPORT: Reason.EXPORT_FAILED,
}
_FIRST_DELAY = timedelta(seconds=10)
_LONGEST_DELAY = timedelta(minutes=5)
_MOST_DOUBLINGS = 10
_POD_DELAY = timedelta(minutes=1)
"""How long the Job's controller may take for a pod before that is told."""


@dataclass(frozen=True)
class Begin:
    """Make the Job of this attempt."""

    number: int


@dataclass(frozen=True)
class Wait:
    """Nothing to do for now; look again at `until`, or when something happens."""

    reason: Reason | None = None
    message: str = ""
    until: datetime | None = None


@dataclass(frozen=True)
class Done:
    """The stage succeeded."""

    report: StageReport


@dataclass(frozen=True)
class GiveUp:
    """The stage failed for good."""

    reason: Reason
    message: str


Step = Begin | Wait | Done | GiveUp


def next_step(
    stage: Stage,
    attempts: list[Attempt],
    begun: int,
    retries: int,
    now: datetime,
    last_begun: datetime | None = None,
) -> Step:
    """Decide about a stage.

    Args:
        stage: the stage.
        attempts: its attempts that the cluster still has, in any order.
        begun: how many were begun as the status remembers; their Jobs may be gone.
        retries: how many failures are forgiven.
        now: the time.
        last_begun: when the last attempt began; None where one whose Job is gone is followed at once.
    """
    mine = sorted(
        (attempt for attempt in attempts if attempt.stage is stage and not attempt.is_going),
        key=lambda one: one.number,
    )
    if mine and mine[-1].state is State.ACTIVE:
        # Whatever the status says: a stage never runs twice at a time.
        return _explain_waiting(mine[-1], now)
    if not mine or mine[-1].number < begun:
        due = last_begun + _delay_after(begun) if last_begun and begun else now
        if now < due:
            return Wait(Reason.RETRYING, f"attempt {begun + 1} follows; the Job of attempt {begun} is gone", due)
        return _begin(stage, begun + 1)
    last = mine[-1]
    if last.state is State.SUCCEEDED and last.report and last.report.outcome == "Succeeded":
        return Done(last.report)
    reason, message = _diagnose(last)
    if last.state is State.FAILED and reason in _PERMANENT:
        return GiveUp(reason, message)
    failures = sum(attempt.state is not State.DISRUPTED for attempt in mine)
    if failures > retries:
        return GiveUp(
            _FAILED[stage] if reason is Reason.RETRYING else reason,
            f"{failures} attempts failed, {retries} retries are allowed; the last: {message}",
        )
    # Clocks differ, and nothing has ended later than now.
    due = min(last.finished or now, now) + _delay_after(len(mine))
    if now < due:
        return Wait(Reason.RETRYING, f"attempt {last.number + 1} follows; attempt {last.number}: {message}", due)
    return _begin(stage, last.number + 1)


def _begin(stage: Stage, number: int) -> Step:
    if number > MAX_ATTEMPTS:
        return GiveUp(_FAILED[stage], f"{MAX_ATTEMPTS} attempts were made, disruptions included")
    return Begin(number)


def _delay_after(attempts: int) -> timedelta:
    """Return how long the next attempt waits: longer each time, but never so long that it looks given up."""
    factor: int = 2 ** min(attempts - 1, _MOST_DOUBLINGS)
    return min(_FIRST_DELAY * factor, _LONGEST_DELAY)


def last_begun(attempts: list[Attempt], known: Attempts, recorded: datetime | None, now: datetime) -> datetime | None:
    """Return when the last attempt began: of one that the status does not know of yet, its Job says it.

    Args:
        attempts: those that the cluster still has.
        known: how many the status knows of.
        recorded: when the last of those began.
        now: the time; a Job that nobody looked at yet has not begun before.
    """
    unknown = [one for one in attempts if one.number > known.of(one.stage)]
    return max((one.started or now for one in unknown), default=recorded)


def count_begun(attempts: list[Attempt], known: Attempts) -> Attempts:
    """Count what was begun: never fewer than the status remembers, since finished Jobs may be gone."""
    counted = known
    for attempt in attempts:
        counted = counted.with_count(attempt.stage, max(counted.of(attempt.stage), attempt.number))
    disruptions = sum(attempt.state is State.DISRUPTED and not attempt.is_going for attempt in attempts)
    return counted.model_copy(update={"disruptions": max(known.disruptions, disruptions)})


def _explain_waiting(attempt: Attempt, now: datetime) -> Wait:
    """An attempt that runs needs no word; one that cannot start gets its reason."""
    if attempt.queue is not None:
        where = f"Kueue's queue {attempt.queue}" if attempt.queue else "suspension"
        return Wait(Reason.QUEUED, f"Job {attempt.name} waits in {where}")
    if attempt.started and not attempt.has_pod:
        due = min(attempt.started, now) + _POD_DELAY
        hint = f"Job {attempt.name} has no pod: a quota or a policy may forbid it, see kubectl describe job"
        return Wait(None, f"attempt {attempt.number}", due) if now < due else Wait(Reason.POD_NOT_CREATED, hint)
    kind, _, message = attempt.waiting.partition(": ")
    if kind in IMAGE_PULL_ERRORS:
        return Wait(Reason.IMAGE_PULL_FAILED, message)
    if kind == "CreateContainerConfigError":
        return Wait(Reason.SECRET_NOT_FOUND, f"{message}: make the Secret, or correct secretRef")
    if kind == "Unschedulable":
        return Wait(Reason.UNSCHEDULABLE, message)
    if kind:
        return Wait(Reason.WAITING, attempt.waiting)
    return Wait(message=f"attempt {attempt.number}")


def _diagnose(attempt: Attempt) -> tuple[Reason, str]:
    """Say why an attempt ended; the program's own report is the best witness."""
    if attempt.state is State.DISRUPTED:
        return Reason.RETRYING, "its pod was disrupted"
    if attempt.report and attempt.report.outcome == "Failed":
        return attempt.report.reason, attempt.report.message
    if attempt.out_of_memory or attempt.exit_code == ExitCode.OUT_OF_MEMORY:
        return Reason.OUT_OF_MEMORY, "the container ran out of memory: raise compute.resources.memory"
    if attempt.state is State.SUCCEEDED:
        return _FAILED[attempt.stage], "the pod left no report"
    return _FAILED[attempt.stage], f"the container ended with exit code {attempt.exit_code} and no report"
