"""The next action for a stage, from its attempts: start one, wait, finish, or give up. No I/O.

A failure that would repeat is not retried; a disruption costs no retry.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import ExitCode, find_failure
from finetune_api.contract.reports import StageReport
from finetune_api.jobstatus import MAX_ATTEMPTS, Attempts
from finetune_api.stage import Stage

from finetune_operator.state.child_jobs import IMAGE_PULL_ERRORS, Attempt, AttemptState

_FAILED = {
    Stage.PREPARE: Reason.PREPARE_FAILED,
    Stage.TRAIN: Reason.TRAINING_FAILED,
    Stage.EVALUATE: Reason.EVALUATION_FAILED,
    Stage.EXPORT: Reason.EXPORT_FAILED,
}
_FIRST_DELAY = timedelta(seconds=10)
_MAX_DELAY = timedelta(minutes=5)
_MAX_DOUBLINGS = 10
_POD_DELAY = timedelta(minutes=1)
"""How long the Job controller may take to create a pod before the condition reports it."""


@dataclass(frozen=True)
class StartAttempt:
    """Create the Job of this attempt."""

    number: int


@dataclass(frozen=True)
class Wait:
    """Do nothing until a watch reports a change or until `until`."""

    reason: Reason | None = None
    message: str = ""
    until: datetime | None = None


@dataclass(frozen=True)
class Done:
    """The stage succeeded."""

    report: StageReport


@dataclass(frozen=True)
class GiveUp:
    """The stage failed permanently."""

    reason: Reason
    message: str


StageAction = StartAttempt | Wait | Done | GiveUp


def next_action(
    stage: Stage,
    attempts: list[Attempt],
    started: int,
    retries: int,
    now: datetime,
    start_time: datetime | None = None,
) -> StageAction:
    """Return the next action of a stage.

    Args:
        stage: the stage.
        attempts: the attempts whose Jobs still exist, of all stages and in any order.
        started: number of attempts of the stage that the status records; their Jobs may no longer exist.
        retries: number of failures to retry.
        now: the current time.
        start_time: when the last attempt started; None to retry at once if its Job no longer exists.
    """
    existing = sorted(
        (attempt for attempt in attempts if attempt.stage is stage and not attempt.is_terminating),
        key=lambda attempt: attempt.number,
    )
    if existing and existing[-1].state is AttemptState.ACTIVE:
        # Whatever the status says: a stage never runs twice at the same time.
        return _explain_wait(existing[-1], now)
    if not existing or existing[-1].number < started:
        due = start_time + _delay_after(started) if start_time and started else now
        if now < due:
            message = f"attempt {started + 1} starts after a pause; the Job of attempt {started} no longer exists"
            return Wait(Reason.RETRYING, message, due)
        return _start(stage, started + 1)
    last = existing[-1]
    if last.state is AttemptState.SUCCEEDED and last.report and last.report.outcome == "Succeeded":
        return Done(last.report)
    reason, message = _diagnose(last)
    if last.state is AttemptState.FAILED and find_failure(reason).is_terminal:
        return GiveUp(reason, message)
    failures = sum(attempt.state is not AttemptState.DISRUPTED for attempt in existing)
    if failures > retries:
        return GiveUp(
            _FAILED[stage] if reason is Reason.RETRYING else reason,
            f"{failures} attempts failed, {retries} retries are allowed; last attempt: {message}",
        )
    # Clocks differ, and no attempt finished later than now.
    due = min(last.finished or now, now) + _delay_after(len(existing))
    if now < due:
        message = f"attempt {last.number + 1} starts after a pause; attempt {last.number}: {message}"
        return Wait(Reason.RETRYING, message, due)
    return _start(stage, last.number + 1)


def _start(stage: Stage, number: int) -> StageAction:
    if number > MAX_ATTEMPTS:
        return GiveUp(_FAILED[stage], f"all {MAX_ATTEMPTS} possible attempts were started, disruptions included")
    return StartAttempt(number)


def _delay_after(attempts: int) -> timedelta:
    """Return the exponential backoff before the next attempt, capped so that the job does not seem stuck."""
    factor: int = 2 ** min(attempts - 1, _MAX_DOUBLINGS)
    return min(_FIRST_DELAY * factor, _MAX_DELAY)


def last_start_time(
    attempts: list[Attempt], known: Attempts, recorded: datetime | None, now: datetime
) -> datetime | None:
    """Return when the last attempt started; for an attempt that the status does not record yet, its Job says when.

    Args:
        attempts: the attempts whose Jobs still exist.
        known: the numbers of attempts that the status records.
        recorded: when the last of those started, by the status.
        now: the current time, for a Job that has no start time yet.
    """
    unrecorded = [attempt for attempt in attempts if attempt.number > known.of(attempt.stage)]
    return max((attempt.started or now for attempt in unrecorded), default=recorded)


def count_attempts(attempts: list[Attempt], known: Attempts) -> Attempts:
    """Return the numbers of attempts: at least what the status records, since finished Jobs may be deleted."""
    counted = known
    for attempt in attempts:
        counted = counted.with_count(attempt.stage, max(counted.of(attempt.stage), attempt.number))
    disruptions = sum(attempt.state is AttemptState.DISRUPTED and not attempt.is_terminating for attempt in attempts)
    return counted.model_copy(update={"disruptions": max(known.disruptions, disruptions)})


def _explain_wait(attempt: Attempt, now: datetime) -> Wait:
    """Return what an active attempt waits for; a running one has no reason."""
    if attempt.queue is not None:
        message = f"waits in Kueue's queue {attempt.queue}" if attempt.queue else "is suspended"
        return Wait(Reason.QUEUED, f"Job {attempt.name} {message}")
    if attempt.started and not attempt.has_pod:
        due = min(attempt.started, now) + _POD_DELAY
        if now < due:
            return Wait(None, f"attempt {attempt.number}", due)
        hint = f"a ResourceQuota or an admission policy may reject it, see kubectl describe job {attempt.name}"
        return Wait(Reason.POD_NOT_CREATED, f"Job {attempt.name} has no pod: {hint}")
    kind, _, message = attempt.waiting.partition(": ")
    if kind in IMAGE_PULL_ERRORS:
        return Wait(Reason.IMAGE_PULL_FAILED, message)
    if kind == "CreateContainerConfigError":
        return Wait(Reason.SECRET_NOT_FOUND, f"{message}: create the Secret, or correct secretRef")
    if kind == "Unschedulable":
        return Wait(Reason.UNSCHEDULABLE, message)
    if kind:
        return Wait(Reason.WAITING, attempt.waiting)
    return Wait(message=f"attempt {attempt.number}")


def _diagnose(attempt: Attempt) -> tuple[Reason, str]:
    """Return why an attempt ended; the program's own report takes precedence over the container's state."""
    if attempt.state is AttemptState.DISRUPTED:
        return Reason.RETRYING, "its pod was disrupted"
    if attempt.report and attempt.report.outcome == "Failed":
        return attempt.report.reason, attempt.report.message
    if attempt.out_of_memory or attempt.exit_code == ExitCode.OUT_OF_MEMORY:
        is_small = attempt.stage is Stage.PREPARE or attempt.server is not None
        limit = "smallStages.memory of the chart" if is_small else "compute.resources.memory"
        return Reason.OUT_OF_MEMORY, f"the container ran out of memory: raise {limit}"
    if attempt.state is AttemptState.SUCCEEDED:
        return _FAILED[attempt.stage], "the pod wrote no report"
    return _FAILED[attempt.stage], f"the container exited with code {attempt.exit_code} and without a report"
