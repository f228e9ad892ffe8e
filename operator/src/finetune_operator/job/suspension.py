"""What `spec.suspend` does: it stops the stage that runs, and no other begins. Pure.

A stage is stopped by deleting its Job, so that its pods get SIGTERM and the trainer writes a checkpoint. Such a Job is
no failure: the next attempt has another number, and begins once nothing of it is left.
"""

from finetune_api.conditions import ConditionType, Reason

from finetune_operator.job.acceptance import Problem
from finetune_operator.job.draft import Draft
from finetune_operator.state.child_jobs import Attempt, State

_MOST_NAMES = 3


def find_stopping(attempts: list[Attempt], leftover: list[str]) -> str:
    """Name what is still there of attempts that were stopped; empty where nothing is.

    Args:
        attempts: the job's, of all stages.
        leftover: pods whose Job is gone.
    """
    going = [f"Job {one.name}" for one in attempts if one.is_going] + [f"pod {name}" for name in leftover]
    more = f" and {len(going) - _MOST_NAMES} more" if len(going) > _MOST_NAMES else ""
    return ", ".join(going[:_MOST_NAMES]) + more


def explain_pause(attempts: list[Attempt], leftover: list[str]) -> Problem:
    """Say how far a suspended job is stopped."""
    running = [f"Job {one.name}" for one in attempts if one.state is State.ACTIVE and not one.is_going]
    stopping = find_stopping(attempts, leftover) or ", ".join(running)
    if stopping:
        return Reason.STOPPING, f"{stopping} ends first"
    return Reason.SUSPENDED, "goes on when spec.suspend is false"


def pause(draft: Draft, attempts: list[Attempt], leftover: list[str], *, has_work: bool) -> None:
    """Stop what runs and say so. A Job whose pods all ended is left to say how they ended.

    Args:
        draft: the job.
        attempts: its attempts, of all stages.
        leftover: pods whose Job is gone.
        has_work: whether a stage is left to do; a job without one is as Ready as before.
    """
    draft.stop([one for one in attempts if not one.pods_ended])
    draft.set_status(attempt_time=None)
    reason, message = explain_pause(attempts, leftover)
    is_stopped = reason is Reason.SUSPENDED
    draft.conditions.set(ConditionType.SUSPENDED, status=is_stopped, reason=reason, message=message)
    if has_work:
        draft.conditions.set(ConditionType.READY, status=False, reason=reason, message=message)
    if is_stopped and not draft.conditions.is_true(ConditionType.EVALUATED):
        # A server that was to judge the result has room for another one's meanwhile.
        draft.set_status(evaluation_server=None)


def resume(draft: Draft) -> None:
    """Say that a job that was suspended is so no more."""
    if ConditionType.SUSPENDED in draft.conditions.by_type:
        draft.conditions.set(
            ConditionType.SUSPENDED, status=False, reason=Reason.RESUMED, message="spec.suspend is false"
        )
