"""How long a job's stages were at work, and whether that is longer than `activeDeadlineSeconds` allows. Pure.

Counted like a stopwatch that the status holds: it runs while a stage's Job is there and neither ended nor suspended.
"""

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobstatus import ActiveTime

from finetune_operator.job.acceptance import Problem
from finetune_operator.job.draft import Draft
from finetune_operator.state.child_jobs import Attempt, State
from finetune_operator.state.plan import REQUEUE_SOON_SECONDS


def find_running(attempts: list[Attempt]) -> Attempt | None:
    """Return the attempt that is at work; one in Kueue's queue or on its way out is not."""
    return next((one for one in attempts if one.state is State.ACTIVE and one.queue is None and not one.is_going), None)


def count_active(known: ActiveTime | None, attempts: list[Attempt], now: datetime) -> ActiveTime:
    """Return the time at work: the stopwatch starts when an attempt runs, and stops when none does any more.

    An attempt that ended unseen is counted until its Job's own end.
    """
    active = known or ActiveTime()
    if find_running(attempts):
        return active if active.since else ActiveTime(seconds=active.seconds, since=now)
    if active.since is None:
        return active
    ends = [one.finished for one in attempts if one.finished and one.finished >= active.since]
    end = max(ends, default=now)
    return ActiveTime(seconds=active.seconds + int((end - active.since).total_seconds()))


def keep_clock(draft: Draft, spec: FineTuneJobSpec, attempts: list[Attempt]) -> Attempt | None:
    """Bring the time at work up to date, where the job has a deadline; return the attempt that is at work."""
    running = find_running(attempts)
    if spec.active_deadline_seconds is not None:
        draft.set_status(active=count_active(draft.status.active, attempts, draft.now))
        if running:
            draft.look_again(max(_seconds_left(draft, spec.active_deadline_seconds), REQUEUE_SOON_SECONDS))
    return running


def start_clock(draft: Draft, spec: FineTuneJobSpec) -> None:
    """Let the time run from now on, where the job has a deadline: a stage begins."""
    if spec.active_deadline_seconds is not None:
        seconds = draft.status.active.seconds if draft.status.active else 0
        draft.set_status(active=ActiveTime(seconds=seconds, since=draft.now))


def stop_clock(draft: Draft) -> None:
    """Let the time stand: the job failed, and what still runs of it is stopped."""
    if draft.status.active:
        draft.set_status(active=count_active(draft.status.active, [], draft.now))


def is_late(draft: Draft, spec: FineTuneJobSpec) -> bool:
    """Tell whether the stages were at work for as long as they may."""
    return spec.active_deadline_seconds is not None and _seconds_left(draft, spec.active_deadline_seconds) <= 0


def _seconds_left(draft: Draft, allowed: int) -> float:
    active = draft.status.active or ActiveTime()
    running = (draft.now - active.since).total_seconds() if active.since else 0.0
    return allowed - active.seconds - running


def explain_deadline(spec: FineTuneJobSpec) -> Problem:
    """Say why a job ended."""
    seconds = spec.active_deadline_seconds
    return Reason.DEADLINE_EXCEEDED, f"its stages were at work for {seconds} s, as long as activeDeadlineSeconds allows"
