"""When a FineTuneJob is deleted by its `ttlSecondsAfterFinished`. Pure.

A result that serves, is pinned, or is what a server would go back to keeps its job.
"""

from datetime import datetime, timedelta

from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import FineTuneJobSpec

from finetune_operator.job.draft import Draft
from finetune_operator.state.views import ServerView


def find_expiry(draft: Draft, spec: FineTuneJobSpec, *, is_awaited: bool) -> datetime | None:
    """Return when the job is to be deleted; None while it is needed, or for good without a `ttlSecondsAfterFinished`.

    Args:
        draft: the job.
        spec: its spec.
        is_awaited: whether another job is to begin with its result and has not taken it over yet.
    """
    status = draft.status
    if draft.conditions.is_true(ConditionType.FAILED):
        ended = status.completion_time
    elif is_awaited:
        ended = None
    elif spec.serving:
        ended = status.retired_time
    else:
        ended = status.completion_time if draft.conditions.is_true(ConditionType.READY) else None
    if ended is None or spec.ttl_seconds_after_finished is None:
        return None
    # A status may name any time: nothing ended later than now.
    return min(ended, draft.now) + timedelta(seconds=spec.ttl_seconds_after_finished)


def is_retired(job: str, server: ServerView | None, newer_job: str | None, *, server_is_ours: bool) -> bool:
    """Tell whether newer results took a job's place, and its server does not hold its result any more.

    Args:
        job: name of the FineTuneJob.
        server: the ModelServer that it names, if it exists.
        newer_job: a job that was proven later and serves under the same name there.
        server_is_ours: whether the server is the job's own, and would go with it.
    """
    if newer_job is None or server_is_ours or server is None or server.spec is None:
        return False
    held: set[str | None] = {*server.spec.pins.values(), *(model.job for model in server.status.models)}
    for rollout in server.status.rollouts:
        held |= {rollout.stable, rollout.previous, rollout.candidate}
    return job not in held
