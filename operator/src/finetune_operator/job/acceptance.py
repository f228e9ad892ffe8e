"""Checks that a job must pass before it starts: whatever can be known before a GPU is spent. No I/O."""

from finetune_api.conditions import Reason
from finetune_api.data import Dataset
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.hosts import explain_refusal, find_host_entry
from finetune_api.modelserver import Model
from finetune_api.uris import parse_uri

from finetune_operator.state.views import ServerView

Problem = tuple[Reason, str]
"""Reason and message of a condition that is False."""


def check_sources(dataset: Dataset, hosts: list[str]) -> Problem | None:
    """Return why the dataset may not be fetched: the administrator does not list its host. None if it may."""
    for source in (*dataset.sources.values(), dataset.validation):
        uri = parse_uri(source.uri) if source else None
        if uri and uri.scheme == "https" and find_host_entry(uri.authority, hosts) is None:
            return Reason.ACCESS_DENIED, explain_refusal(str(uri), uri.authority, hosts)
    return None


def check_server(
    spec: FineTuneJobSpec,
    base: Model,
    server: ServerView | None,
    chat_template: str | None,
    *,
    controls_server: bool,
) -> Problem | None:
    """Return why the result of a job could not be served; None if it could, or if it is not to be served.

    Args:
        spec: the job's spec.
        base: the base model of the result.
        server: the ModelServer that the job names or creates, if it exists.
        chat_template: digest of the `model.chatTemplate` that `prepare` read; None before, or if it has none.
        controls_server: whether this job is the server's controller.
    """
    serving = spec.serving
    if serving is None:
        return None
    if serving.template is not None:
        if server is not None and not controls_server:
            return Reason.CONFLICT, (
                f"ModelServer {server.name} exists and does not belong to this job:"
                " name it in serving.server, or give the job another name"
            )
        return None
    if server is None:
        return (
            Reason.SERVER_NOT_FOUND,
            f"ModelServer {serving.server} does not exist: create it, or correct serving.server",
        )
    if server.spec is None:
        return Reason.SERVER_NOT_FOUND, f"ModelServer {server.name} is invalid: {server.problem}"
    if (server.spec.model.uri, server.spec.model.revision) != (base.uri, base.revision):
        return Reason.SERVER_MISMATCH, (
            f"ModelServer {server.name} serves {_describe(server.spec.model)}, the job trains {_describe(base)}:"
            " an adapter works only with its own base model"
        )
    if problem := _check_chat_template(base, server, server.spec.model, chat_template):
        return Reason.SERVER_MISMATCH, problem
    rank = spec.adapter.low_rank.rank if spec.adapter.low_rank else 0
    if rank > server.spec.lora.max_rank:
        return Reason.SERVER_MISMATCH, (
            f"adapter.{spec.adapter.name}.rank is {rank},"
            f" lora.maxRank of ModelServer {server.name} is {server.spec.lora.max_rank}"
        )
    return check_server_capacity(serving.model_name, server)


def _check_chat_template(base: Model, server: ServerView, served: Model, prepared: str | None) -> str:
    """Return why a server would render the chats of a job with another template than its training; empty if not."""
    if served.chat_template != base.chat_template:
        names = [model.chat_template or "the chat template of the model" for model in (served, base)]
        return (
            f"ModelServer {server.name} renders chats with {names[0]}, the job trains with {names[1]}: set the same"
            " model.chatTemplate"
        )
    started = server.status.chat_template
    if prepared and started and prepared != started:
        return (
            f"{base.chat_template} was changed since ModelServer {server.name} started with it: restore the content"
            f" with the digest {started[:19]} and create another FineTuneJob, or create another ModelServer"
        )
    return ""


def _describe(model: Model) -> str:
    return f"{model.uri} at {model.revision}" if model.revision else model.uri


def check_server_capacity(model_name: str, server: ServerView) -> Problem | None:
    """Return why a server cannot host another model name; None if it can, or if it already hosts this name."""
    names = [rollout.name for rollout in server.status.rollouts]
    if server.spec is None or model_name in names or len(names) < server.spec.lora.max_adapters:
        return None
    return Reason.SERVER_FULL, (
        f"ModelServer {server.name} hosts {len(names)} model names, the maximum in lora.maxAdapters:"
        f" raise it, delete the jobs of one name, or serve under one of {', '.join(names)[:512]}"
    )
