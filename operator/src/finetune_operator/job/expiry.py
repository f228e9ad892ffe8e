"""When `ttlSecondsAfterFinished` deletes a FineTuneJob. No I/O.

A job is kept while its result is served, is pinned, or is the version that a server would roll back to.
"""

from datetime import datetime, timedelta

from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import FineTuneJobSpec

from finetune_operator.job.plan_builder import PlanBuilder
from finetune_operator.state.views import ServerView


def find_expiry(builder: PlanBuilder, spec: FineTuneJobSpec, *, has_dependents: bool) -> datetime | None:
    """Return when to delete the job; None while it is needed or has no `ttlSecondsAfterFinished`.

    Args:
        builder: the job's plan.
        spec: the job's spec.
        has_dependents: whether another job is about to start from its result.
    """
    status = builder.status
    if builder.conditions.is_true(ConditionType.FAILED):
        ended = status.completion_time
    elif has_dependents:
        ended = None
    elif spec.serving:
        ended = status.retired_time
    else:
        ended = status.completion_time if builder.conditions.is_true(ConditionType.READY) else None
    if ended is None or spec.ttl_seconds_after_finished is None:
        return None
    # A status can hold any time, but no job ended later than now.
    return min(ended, builder.now) + timedelta(seconds=spec.ttl_seconds_after_finished)


def is_retired(job: str, server: ServerView | None, newer_job: str | None, *, controls_server: bool) -> bool:
    """Return whether newer results replaced a job's result and its server no longer hosts it.

    Args:
        job: name of the FineTuneJob.
        server: the ModelServer that it names, if it exists.
        newer_job: a job that passed its gates later and serves under the same name there.
        controls_server: whether the server belongs to the job, and would be deleted with it.
    """
    if newer_job is None or controls_server or server is None or server.spec is None:
        return False
    hosted: set[str | None] = {*server.spec.pins.values(), *(model.job for model in server.status.models)}
    for rollout in server.status.rollouts:
        hosted |= {rollout.stable, rollout.previous, rollout.candidate}
    return job not in hosted
