"""`spec.suspend`: stops the running stage and keeps others from starting. No I/O.

A stage is stopped by deleting its Job: its pods get SIGTERM, and the trainer writes a checkpoint. The deleted Job does
not count as a failure. The next attempt has another number and starts once the last pod is gone.
"""

from finetune_api.conditions import ConditionType, Reason

from finetune_operator.job.acceptance import Problem
from finetune_operator.job.plan_builder import PlanBuilder
from finetune_operator.state.child_jobs import Attempt, AttemptState

_MAX_NAMES = 3


def name_stopping(attempts: list[Attempt], lingering_pods: list[str]) -> str:
    """Return the names of stopped Jobs and pods that still exist, for a message; empty if there are none.

    Args:
        attempts: the job's attempts, of all stages.
        lingering_pods: pods whose Job no longer exists.
    """
    names = [f"Job {attempt.name}" for attempt in attempts if attempt.is_terminating]
    names += [f"pod {name}" for name in lingering_pods]
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def explain_stopping(names: str) -> Problem:
    """Return the reason and message of a job that waits for stopped Jobs and pods, named by `name_stopping`."""
    return Reason.STOPPING, f"waiting for {names} to end"


def explain_suspension(attempts: list[Attempt], lingering_pods: list[str]) -> Problem:
    """Return whether a suspended job has stopped or is still stopping, as a reason and a message."""
    active = [
        f"Job {attempt.name}"
        for attempt in attempts
        if attempt.state is AttemptState.ACTIVE and not attempt.is_terminating
    ]
    names = name_stopping(attempts, lingering_pods) or ", ".join(active)
    return explain_stopping(names) if names else (Reason.SUSPENDED, "set spec.suspend to false to resume")


def suspend(builder: PlanBuilder, attempts: list[Attempt], lingering_pods: list[str], *, has_work: bool) -> None:
    """Stop the running stage. A Job whose pods have all ended is kept: it still reports their outcome.

    Args:
        builder: the job's plan.
        attempts: its attempts, of all stages.
        lingering_pods: pods whose Job no longer exists.
        has_work: whether a stage is not done; without one the job stays Ready.
    """
    builder.delete_active([attempt for attempt in attempts if not attempt.pods_ended])
    builder.set_status(attempt_time=None)
    reason, message = explain_suspension(attempts, lingering_pods)
    is_stopped = reason is Reason.SUSPENDED
    builder.conditions.set(ConditionType.SUSPENDED, status=is_stopped, reason=reason, message=message)
    if has_work:
        builder.conditions.set(ConditionType.READY, status=False, reason=reason, message=message)
    if is_stopped and not builder.conditions.is_true(ConditionType.EVALUATED):
        # The server that would evaluate the result can evaluate another one meanwhile.
        builder.set_status(evaluation_server=None)


def resume(builder: PlanBuilder) -> None:
    """Set the condition Suspended to False if the job was suspended before."""
    if ConditionType.SUSPENDED in builder.conditions.by_type:
        builder.conditions.set(
            ConditionType.SUSPENDED, status=False, reason=Reason.RESUMED, message="spec.suspend is false"
        )
