"""The last step of a job: its result is served under its model name, or it is complete without serving. No I/O."""

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.finetunejob import Serving
from finetune_api.jobstatus import FineTuneJobStatus, ServingStatus
from finetune_api.modelserver import ServedModel
from finetune_api.rollout import RolloutStatus

from finetune_operator.job.acceptance import Problem, check_server_capacity
from finetune_operator.job.plan_builder import PlanBuilder
from finetune_operator.manifests.server import build_model_server, endpoint_of
from finetune_operator.state.views import JobView, ServerView

Completion = tuple[Reason, str]
"""Reason and message of a job that is Ready."""


def deploy(
    builder: PlanBuilder, serving: Serving | None, view: ServerView | None, newer_job: str | None
) -> Completion | None:
    """Record how far the result is served; return the completion once it is, or if nothing is to be served.

    Args:
        builder: the job's plan.
        serving: the job's spec of where to serve its result.
        view: the ModelServer that the job names or creates, if it exists.
        newer_job: a job that passed its gates later and serves under the same name on the same server.
    """
    if serving is None:
        return Reason.COMPLETED, "the result passed its gates and is stored at status.artifact.uri"
    server = serving.server or builder.job.name
    if serving.template is not None:
        builder.desired.append(build_model_server(builder.job))
    served = _find_served(builder.job, builder.status, serving, view)
    builder.set_status(
        serving=ServingStatus(
            model_name=serving.model_name,
            server=server,
            endpoint=endpoint_of(builder.job.namespace, server),
            loaded_pods=served.loaded_pods if served else 0,
        )
    )
    rollout = _find_rollout(serving, view)
    # The stable version is Ready with a part of the requests too: while a canary is compared with it, and until its
    # full weight is restored afterwards.
    is_stable = (
        rollout is not None
        and rollout.stable == builder.job.name
        and (rollout.candidate is not None or builder.conditions.is_true(ConditionType.SERVED))
    )
    if served and served.loaded_pods > 0 and (served.weight == 100 or (is_stable and served.weight > 0)):
        message = f"ModelServer {server} serves {serving.model_name}"
        builder.conditions.set(ConditionType.SERVED, status=True, reason=Reason.ADAPTER_LOADED, message=message)
        return Reason.SERVING, message
    builder.set_not_served(*_explain_not_served(builder, serving, view, served, newer_job))
    return None


def _explain_not_served(
    builder: PlanBuilder, serving: Serving, view: ServerView | None, served: ServedModel | None, newer_job: str | None
) -> Problem:
    """Return why the result does not get all requests for its model name."""
    name, server = serving.model_name, serving.server or builder.job.name
    rollout = _find_rollout(serving, view)
    for aborted in rollout.aborted if rollout else []:
        if rollout and aborted.job == builder.job.name:
            return Reason.ROLLOUT_ABORTED, f"{name} was rolled back to {rollout.stable}: {aborted.message}"
    if newer_job:
        return Reason.SUPERSEDED, f"FineTuneJob {newer_job} serves {name} now"
    if served and served.loaded_pods > 0:
        if served.weight > 0:
            return Reason.ROLLING_OUT, f"the result gets {served.weight} % of the requests for {name}"
        if view and view.spec and view.spec.pins.get(name, builder.job.name) != builder.job.name:
            return Reason.SUPERSEDED, f"ModelServer {server} pins {name} to another job"
        # The server's pods have loaded the result and have not read its new weight yet.
        return Reason.DEPLOYING, _explain_server(server, view)
    if served and served.message:
        return Reason.ADAPTER_REFUSED, served.message
    if builder.status.completion_time:
        return Reason.SERVER_NOT_READY, f"no ready pod of ModelServer {server} has loaded the result"
    full = check_server_capacity(name, view) if view else None
    return full or (Reason.DEPLOYING, _explain_server(server, view))


def _find_rollout(serving: Serving, view: ServerView | None) -> RolloutStatus | None:
    for rollout in view.status.rollouts if view else []:
        if rollout.name == serving.model_name:
            return rollout
    return None


def _find_served(
    job: JobView, status: FineTuneJobStatus, serving: Serving, server: ServerView | None
) -> ServedModel | None:
    """Return the server's status of exactly this result."""
    version = (serving.model_name, job.name, status.artifact.digest if status.artifact else "")
    for model in server.status.models if server else []:
        if (model.name, model.job, model.digest) == version:
            return model
    return None


def _explain_server(name: str, server: ServerView | None) -> str:
    conditions: list[Condition] = server.status.conditions if server else []
    for condition in conditions:
        if condition.type == ConditionType.READY and condition.status == "False" and condition.message:
            return f"ModelServer {name}: {condition.message}"
    return f"ModelServer {name} is loading the result"
