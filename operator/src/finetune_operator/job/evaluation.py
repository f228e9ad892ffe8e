"""Where a result is evaluated, and which incumbent it is compared with. No I/O.

Evaluation runs on a ModelServer with capacity for it, or in a pod of its own. The incumbent is chosen before the first
evaluation and kept for all attempts: the evaluation's Job has it as an argument, and the status records it. Either of
them is enough, so that a stale or lost status changes nothing.
"""

from collections.abc import Iterable

from finetune_api.artifact import Incumbent
from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import Serving
from finetune_api.jobstatus import EvaluationServer
from finetune_api.stage import Stage

from finetune_operator.job.acceptance import check_server_capacity
from finetune_operator.job.plan_builder import PlanBuilder
from finetune_operator.state.child_jobs import Attempt
from finetune_operator.state.conditions import true_conditions
from finetune_operator.state.views import JobView, ServerView


def choose_evaluation_server(
    builder: PlanBuilder, server: ServerView | None, attempt: int, *, is_busy: bool
) -> EvaluationServer | None:
    """Return the ModelServer that evaluates a job's result; None for a pod of its own, which needs another GPU.

    A server is not used again after a failed evaluation, and not if each of its named API keys is limited.

    Args:
        builder: the job's plan.
        server: the ModelServer that the job names or creates, if it exists.
        attempt: number of the evaluation's attempt, from 1.
        is_busy: whether the server evaluates another job's result.
    """
    spec, artifact = builder.job.spec, builder.status.artifact
    if attempt > 1 or is_busy or server is None or server.spec is None or spec is None or spec.serving is None:
        return None
    max_tokens = server.spec.limits.max_tokens
    is_able = (
        spec.serving.server is not None
        and artifact is not None
        and artifact.kind == "Adapter"
        and server.status.ready_replicas > 0
        and (max_tokens is None or max_tokens >= spec.evaluation.max_new_tokens)
        and check_server_capacity(spec.serving.model_name, server) is None
    )
    if not is_able:
        return None
    if server.spec.auth is None:
        return EvaluationServer(name=server.name)
    for key in server.spec.auth.keys:
        if key.models is None and key.requests_per_minute is None:
            return EvaluationServer(name=server.name, secret_ref=server.spec.auth.secret_ref, key=key.name)
    return None


def find_recorded_server(known: EvaluationServer | None, attempts: list[Attempt]) -> EvaluationServer | None:
    """Return the ModelServer chosen for the evaluation: from its newest Job, else from the status.

    The Job takes precedence because the status may not have been written after it was created.
    """
    evaluations = [attempt for attempt in attempts if attempt.stage is Stage.EVALUATE]
    return max(evaluations, key=lambda attempt: attempt.number).server if evaluations else known


def find_job_under_evaluation(server: str, jobs: Iterable[JobView]) -> JobView | None:
    """Return the job whose result a ModelServer evaluates; it evaluates one at a time."""
    for job in sorted(jobs, key=lambda job: job.name):
        ended = true_conditions(job.status.conditions).keys() & {ConditionType.EVALUATED, ConditionType.FAILED}
        chosen = job.status.evaluation_server
        if chosen and chosen.name == server and not ended:
            return job
    return None


def find_incumbent(serving: Serving | None, server: ServerView | None, jobs: list[JobView]) -> Incumbent:
    """Return the result that is served under the job's model name now; empty if no pod could load any.

    Args:
        serving: the job's spec of where to serve its result.
        server: the ModelServer that will host it, if it exists.
        jobs: the FineTuneJobs whose adapters that server hosts.
    """
    models = sorted(server.status.models if server else [], key=lambda model: -model.weight)
    for model in models:
        if serving is None or model.name != serving.model_name or (model.message and not model.loaded_pods):
            continue
        for job in jobs:
            artifact = job.status.artifact
            if artifact and (job.name, artifact.digest) == (model.job, model.digest):
                return Incumbent(job=job.name, artifact=artifact)
    return Incumbent()


def find_recorded_incumbent(known: Incumbent | None, attempts: list[Attempt]) -> Incumbent | None:
    """Return the incumbent chosen for the evaluation: from the status, else from its oldest existing Job."""
    if known is not None:
        return known
    evaluations = sorted(
        (attempt for attempt in attempts if attempt.stage is Stage.EVALUATE), key=lambda attempt: attempt.number
    )
    return next((attempt.incumbent for attempt in evaluations if attempt.incumbent), None)
