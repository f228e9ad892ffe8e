"""The last step of a job: its proven result answers under its name, or its artifact is all that was asked for.

Pure.
"""

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.finetunejob import Serving
from finetune_api.jobstatus import FineTuneJobStatus, ServingStatus
from finetune_api.modelserver import ServedModel
from finetune_api.rollout import RolloutStatus

from finetune_operator.job.acceptance import Problem, find_fullness
from finetune_operator.job.draft import Draft
from finetune_operator.manifests.server import build_model_server, endpoint_of
from finetune_operator.state.views import JobView, ServerView

End = tuple[Reason, str]
"""Reason and message of a job that is Ready."""


def deploy(draft: Draft, serving: Serving | None, view: ServerView | None, newer_job: str | None) -> End | None:
    """Bring the proven result behind its name; return how the job ends once that is so, or if nothing is to serve.

    Args:
        draft: the job.
        serving: where it is to answer.
        view: the ModelServer that the job names or makes, if it exists.
        newer_job: a job that was proven later and serves under the same name on the same server.
    """
    if serving is None:
        return Reason.COMPLETED, "the proven adapter is at status.artifact.uri"
    server = serving.server or draft.job.name
    if serving.template is not None:
        draft.children.append(build_model_server(draft.job))
    served = _served(draft.job, draft.status, serving, view)
    draft.set_status(
        serving=ServingStatus(
            model_name=serving.model_name,
            server=server,
            endpoint=endpoint_of(draft.job.namespace, server),
            loaded_pods=served.loaded_pods if served else 0,
        )
    )
    rollout = _rollout_of(serving, view)
    # The version that a canary is measured with serves until it is replaced, and while it is given its share back.
    is_measure = (
        rollout is not None
        and rollout.stable == draft.job.name
        and (rollout.candidate is not None or draft.conditions.is_true(ConditionType.SERVED))
    )
    if served and served.loaded_pods > 0 and (served.weight == 100 or (is_measure and served.weight > 0)):
        message = f"{serving.model_name} answers on ModelServer {server}"
        draft.conditions.set(ConditionType.SERVED, status=True, reason=Reason.ADAPTER_LOADED, message=message)
        return Reason.SERVING, message
    draft.not_served(*_explain(draft, serving, view, served, newer_job))
    return None


def _explain(
    draft: Draft, serving: Serving, view: ServerView | None, served: ServedModel | None, newer_job: str | None
) -> Problem:
    """Return why the result does not answer all requests for its name."""
    name, server = serving.model_name, serving.server or draft.job.name
    rollout = _rollout_of(serving, view)
    for aborted in rollout.aborted if rollout else []:
        if rollout and aborted.job == draft.job.name:
            return Reason.ROLLOUT_ABORTED, f"{name} went back to {rollout.stable}: {aborted.message}"
    if newer_job:
        return Reason.SUPERSEDED, f"{newer_job} serves {name} now"
    if served and served.loaded_pods > 0:
        if served.weight > 0:
            return Reason.ROLLING_OUT, f"{served.weight} % of the requests for {name} so far"
        if view and view.spec and view.spec.pins.get(name, draft.job.name) != draft.job.name:
            return Reason.SUPERSEDED, f"ModelServer {server} pins {name} to another job"
        # Its pods have not read yet that it answers.
        return Reason.DEPLOYING, _explain_server(server, view)
    if served and served.message:
        return Reason.ADAPTER_REFUSED, served.message
    if draft.status.completion_time:
        return Reason.SERVER_NOT_READY, f"ModelServer {server} has no ready pod with the adapter"
    full = find_fullness(name, view) if view else None
    return full or (Reason.DEPLOYING, _explain_server(server, view))


def _rollout_of(serving: Serving, view: ServerView | None) -> RolloutStatus | None:
    return next((one for one in view.status.rollouts if one.name == serving.model_name), None) if view else None


def _served(job: JobView, status: FineTuneJobStatus, serving: Serving, server: ServerView | None) -> ServedModel | None:
    """Return what the server says of this very adapter."""
    for model in server.status.models if server else []:
        mine = (serving.model_name, job.name, status.artifact.digest if status.artifact else "")
        if (model.name, model.job, model.digest) == mine:
            return model
    return None


def _explain_server(name: str, server: ServerView | None) -> str:
    conditions: list[Condition] = server.status.conditions if server else []
    for condition in conditions:
        if condition.type == ConditionType.READY and condition.status == "False" and condition.message:
            return f"ModelServer {name}: {condition.message}"
    return f"ModelServer {name} loads the adapter"
