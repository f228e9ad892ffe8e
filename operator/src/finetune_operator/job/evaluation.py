"""Where a result is evaluated, and what it is compared with. No I/O.

Evaluation runs on a ModelServer that has room for it, or in a pod of its own. The incumbent is chosen before the first
evaluation and kept over all attempts: the choice travels with the evaluation's Job as an argument and is recorded in
the status. Either of the two is enough: a status that is read late, or was never written, changes nothing.
"""

from collections.abc import Iterable

from finetune_api.artifact import Incumbent
from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import Serving
from finetune_api.jobstatus import EvaluationServer
from finetune_api.stage import Stage

from finetune_operator.job.acceptance import find_fullness
from finetune_operator.job.draft import Draft
from finetune_operator.state.child_jobs import Attempt
from finetune_operator.state.conditions import true_conditions
from finetune_operator.state.views import JobView, ServerView


def choose_server(draft: Draft, server: ServerView | None, attempt: int, *, is_busy: bool) -> EvaluationServer | None:
    """Return the ModelServer that is to evaluate a job's result; None is a pod of its own, which needs a GPU more.

    A server that failed once is not asked again, nor one whose every named API key is limited.

    Args:
        draft: the job.
        server: the ModelServer that the job names or makes, if it exists.
        attempt: of the evaluation, from 1.
        is_busy: whether the server evaluates another job's result.
    """
    spec, artifact = draft.job.spec, draft.status.artifact
    if attempt > 1 or is_busy or server is None or server.spec is None or spec is None or spec.serving is None:
        return None
    most = server.spec.limits.max_tokens
    is_able = (
        spec.serving.server is not None
        and artifact is not None
        and artifact.kind == "Adapter"
        and server.status.ready_replicas > 0
        and (most is None or most >= spec.evaluation.max_new_tokens)
        and find_fullness(spec.serving.model_name, server) is None
    )
    if not is_able:
        return None
    if server.spec.auth is None:
        return EvaluationServer(name=server.name)
    for key in server.spec.auth.keys:
        if key.models is None and key.requests_per_minute is None:
            return EvaluationServer(name=server.name, secret_ref=server.spec.auth.secret_ref, key=key.name)
    return None


def recorded_server(known: EvaluationServer | None, attempts: list[Attempt]) -> EvaluationServer | None:
    """Return the ModelServer that evaluates a job's result: the newest evaluation says so, else the status.

    The status may not have been written any more when the evaluation's Job was made.
    """
    evaluations = [one for one in attempts if one.stage is Stage.EVALUATE]
    return max(evaluations, key=lambda one: one.number).server if evaluations else known


def find_evaluated(server: str, jobs: Iterable[JobView]) -> JobView | None:
    """Return the job whose result a ModelServer evaluates; one at a time."""
    for job in sorted(jobs, key=lambda job: job.name):
        ended = true_conditions(job.status.conditions).keys() & {ConditionType.EVALUATED, ConditionType.FAILED}
        chosen = job.status.evaluation_server
        if chosen and chosen.name == server and not ended:
            return job
    return None


def find_incumbent(serving: Serving | None, server: ServerView | None, jobs: list[JobView]) -> Incumbent:
    """Return what serves under the job's model name now; one that no pod could load serves nothing.

    Args:
        serving: where the job's result is to answer.
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


def recorded_incumbent(known: Incumbent | None, attempts: list[Attempt]) -> Incumbent | None:
    """Return the incumbent that was chosen already: the status says so, or the oldest evaluation that is there."""
    if known is not None:
        return known
    evaluations = sorted((one for one in attempts if one.stage is Stage.EVALUATE), key=lambda one: one.number)
    return next((one.incumbent for one in evaluations if one.incumbent), None)
