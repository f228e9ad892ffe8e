"""Checks that a job must pass before it starts: whatever can be known before a GPU is spent. No I/O."""

from finetune_api.conditions import ConditionType, Reason
from finetune_api.data import Dataset
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.hosts import explain_refusal, find_host_entry
from finetune_api.modelserver import Model
from finetune_api.uris import parse_uri
from finetune_api.warm_start import WarmStart

from finetune_operator.manifests.names import job_file
from finetune_operator.state.conditions import true_conditions
from finetune_operator.state.views import JobView, ServerView

Problem = tuple[Reason, str]
"""Reason and message of a condition that is False."""


def check_sources(dataset: Dataset, hosts: list[str]) -> Problem | None:
    """Return why the dataset may not be fetched: the administrator does not list its host. None if it may."""
    for source in (dataset.train, dataset.validation):
        uri = parse_uri(source.uri) if source else None
        if uri and uri.scheme == "https" and find_host_entry(uri.authority, hosts) is None:
            return Reason.ACCESS_DENIED, explain_refusal(str(uri), uri.authority, hosts)
    return None


def resolve_parent(spec: FineTuneJobSpec, parent: JobView | None) -> WarmStart | Problem:
    """Return the model behind a `finetunejob://` URI in `model.uri`, or why the job cannot start from it.

    Args:
        spec: the job's spec.
        parent: the FineTuneJob that the URI names, if it exists.
    """
    name = parse_uri(spec.model.uri).authority
    if parent is None or parent.spec is None:
        problem = f"is invalid: {parent.problem}" if parent else "does not exist"
        return Reason.MODEL_NOT_FOUND, f"FineTuneJob {name} {problem}: correct model.uri"
    conditions = true_conditions(parent.status.conditions)
    artifact = parent.status.artifact
    if ConditionType.FAILED in conditions:
        return Reason.MODEL_NOT_FOUND, f"FineTuneJob {name} failed: {conditions[ConditionType.FAILED].message}"[:1024]
    if ConditionType.EVALUATED not in conditions or artifact is None:
        return Reason.WAITING, f"waiting for FineTuneJob {name} to pass its evaluation"
    if parent.spec.method.reward:
        return Reason.MODEL_UNSUPPORTED, (
            f"FineTuneJob {name} trained a reward model, which cannot be trained further: name another job in model.uri"
        )
    if artifact.kind == "Model":
        if spec.model.parent_adapter:
            return Reason.INVALID_SPEC, f"FineTuneJob {name} trained a full model: remove model.parentAdapter"
        return WarmStart(job=name, model=Model(uri=artifact.uri), artifact=artifact)
    mode = spec.model.parent_adapter or "Train"
    if mode == "Train" and spec.adapter != parent.spec.adapter:
        return Reason.INVALID_SPEC, (
            f"adapter differs from the adapter of FineTuneJob {name}, which this job trains further:"
            " copy it from there, or set model.parentAdapter to Merge to train a new one"
        )
    base = Model.model_validate(job_file(parent).base.to_dict())
    return WarmStart(job=name, model=base, artifact=artifact, parent_adapter=mode)


def check_server(
    spec: FineTuneJobSpec, base: Model, server: ServerView | None, *, controls_server: bool
) -> Problem | None:
    """Return why the result of a job could not be served; None if it could, or if it is not to be served.

    Args:
        spec: the job's spec.
        base: the base model of the result.
        server: the ModelServer that the job names or creates, if it exists.
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
    rank = spec.adapter.low_rank.rank if spec.adapter.low_rank else 0
    if rank > server.spec.lora.max_rank:
        return Reason.SERVER_MISMATCH, (
            f"adapter.{spec.adapter.name}.rank is {rank},"
            f" lora.maxRank of ModelServer {server.name} is {server.spec.lora.max_rank}"
        )
    return check_server_capacity(serving.model_name, server)


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
