"""The last step of a job: its proven result answers under its name, or its artifact is all that was asked for.

Pure.
"""

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.finetunejob import Serving
from finetune_api.jobstatus import FineTuneJobStatus, ServingStatus
from finetune_api.modelserver import ServedModel

from finetune_operator.draft import Draft
from finetune_operator.manifests.server import build_model_server, endpoint_of
from finetune_operator.observe import JobView, ServerView

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
    rollout = next((one for one in view.status.rollouts if one.name == serving.model_name), None) if view else None
    aborted = [one.message for one in rollout.aborted if one.job == draft.job.name] if rollout else []
    if served and served.loaded_pods > 0 and served.weight == 100:
        message = f"{serving.model_name} answers on ModelServer {server}"
        draft.conditions.set(ConditionType.SERVED, status=True, reason=Reason.ADAPTER_LOADED, message=message)
        return Reason.SERVING, message
    if rollout and aborted:
        draft.not_served(Reason.ROLLOUT_ABORTED, f"{serving.model_name} went back to {rollout.stable}: {aborted[0]}")
    elif newer_job:
        draft.not_served(Reason.SUPERSEDED, f"{newer_job} serves {serving.model_name} now")
    elif served and served.loaded_pods > 0 and served.weight == 0:
        draft.not_served(Reason.SUPERSEDED, f"ModelServer {server} pins {serving.model_name} to another job")
    elif served and served.loaded_pods > 0:
        draft.not_served(Reason.ROLLING_OUT, f"{served.weight} % of the requests for {serving.model_name} so far")
    elif served and served.message:
        draft.not_served(Reason.ADAPTER_REFUSED, served.message)
    elif draft.status.completion_time:
        draft.not_served(Reason.SERVER_NOT_READY, f"ModelServer {server} has no ready pod with the adapter")
    else:
        draft.not_served(Reason.DEPLOYING, _explain_server(server, view))
    return None


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
