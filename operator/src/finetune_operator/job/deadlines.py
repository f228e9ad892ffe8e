"""How long a job's stages have run, compared with `activeDeadlineSeconds`. No I/O.

The status holds a stopwatch: it runs while the Job of a stage exists and is neither finished nor suspended.
"""

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobstatus import ActiveTime

from finetune_operator.job.acceptance import Problem
from finetune_operator.job.plan_builder import PlanBuilder
from finetune_operator.state.child_jobs import Attempt, AttemptState
from finetune_operator.state.plan import REQUEUE_SOON_SECONDS


def find_running(attempts: list[Attempt]) -> Attempt | None:
    """Return the running attempt; one that is in Kueue's queue or is being deleted does not run."""
    for attempt in attempts:
        if attempt.state is AttemptState.ACTIVE and attempt.queue is None and not attempt.is_terminating:
            return attempt
    return None


def count_active_time(known: ActiveTime | None, attempts: list[Attempt], now: datetime) -> ActiveTime:
    """Return the stopwatch: it starts when an attempt runs and stops when none does.

    For an attempt that ended between two reconciliations, the time until its Job finished is counted.
    """
    active = known or ActiveTime()
    if find_running(attempts):
        return active if active.since else ActiveTime(seconds=active.seconds, since=now)
    if active.since is None:
        return active
    ends = [attempt.finished for attempt in attempts if attempt.finished and attempt.finished >= active.since]
    end = max(ends, default=now)
    return ActiveTime(seconds=active.seconds + int((end - active.since).total_seconds()))


def update_clock(builder: PlanBuilder, spec: FineTuneJobSpec, attempts: list[Attempt]) -> Attempt | None:
    """Update the active time of a job with a deadline; return the running attempt."""
    running = find_running(attempts)
    if spec.active_deadline_seconds is not None:
        builder.set_status(active=count_active_time(builder.status.active, attempts, builder.now))
        if running:
            builder.requeue_after(max(_seconds_left(builder, spec.active_deadline_seconds), REQUEUE_SOON_SECONDS))
    return running


def start_clock(builder: PlanBuilder, spec: FineTuneJobSpec) -> None:
    """Start the stopwatch of a job with a deadline, because a stage starts."""
    if spec.active_deadline_seconds is not None:
        seconds = builder.status.active.seconds if builder.status.active else 0
        builder.set_status(active=ActiveTime(seconds=seconds, since=builder.now))


def stop_clock(builder: PlanBuilder) -> None:
    """Stop the stopwatch: the job failed, and its running stages are stopped."""
    if builder.status.active:
        builder.set_status(active=count_active_time(builder.status.active, [], builder.now))


def is_past_deadline(builder: PlanBuilder, spec: FineTuneJobSpec) -> bool:
    """Return whether the stages have run for `activeDeadlineSeconds`."""
    return spec.active_deadline_seconds is not None and _seconds_left(builder, spec.active_deadline_seconds) <= 0


def _seconds_left(builder: PlanBuilder, allowed: int) -> float:
    active = builder.status.active or ActiveTime()
    running = (builder.now - active.since).total_seconds() if active.since else 0.0
    return allowed - active.seconds - running


def explain_deadline(spec: FineTuneJobSpec) -> Problem:
    """Return the reason and message of a job that exceeded its deadline."""
    seconds = spec.active_deadline_seconds
    return Reason.DEADLINE_EXCEEDED, f"the stages ran for {seconds} s, the limit in activeDeadlineSeconds"
