"""Whether a job may begin: what can be known before a GPU is spent is checked here. Pure."""

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


def find_source_problem(dataset: Dataset, hosts: list[str]) -> Problem | None:
    """Return why data may not be fetched: its host is not one that the administrator lists; None where it may."""
    for source in (dataset.train, dataset.validation):
        uri = parse_uri(source.uri) if source else None
        if uri and uri.scheme == "https" and find_host_entry(uri.authority, hosts) is None:
            return Reason.ACCESS_DENIED, explain_refusal(str(uri), uri.authority, hosts)
    return None


def resolve_earlier(spec: FineTuneJobSpec, earlier: JobView | None) -> WarmStart | Problem:
    """Return what a `finetunejob://` in `model.uri` stands for, or why the job may not begin with it.

    Args:
        spec: the job's.
        earlier: the FineTuneJob that it names, if it exists.
    """
    name = parse_uri(spec.model.uri).authority
    if earlier is None or earlier.spec is None:
        why = f"FineTuneJob {name} is invalid: {earlier.problem}" if earlier else f"there is no FineTuneJob {name}"
        return Reason.MODEL_NOT_FOUND, f"{why}: correct model.uri"
    conditions = true_conditions(earlier.status.conditions)
    artifact = earlier.status.artifact
    if ConditionType.FAILED in conditions:
        return Reason.MODEL_NOT_FOUND, f"FineTuneJob {name} failed: {conditions[ConditionType.FAILED].message}"[:1024]
    if ConditionType.EVALUATED not in conditions or artifact is None:
        return Reason.WAITING, f"FineTuneJob {name} has no proven result yet"
    if earlier.spec.method.reward:
        return Reason.MODEL_UNSUPPORTED, f"FineTuneJob {name} made a model that scores: begin with one that answers"
    if artifact.kind == "Model":
        if spec.model.parent_adapter:
            return Reason.INVALID_SPEC, f"FineTuneJob {name} made a whole model: leave model.parentAdapter out"
        return WarmStart(job=name, model=Model(uri=artifact.uri), artifact=artifact)
    wanted = spec.model.parent_adapter or "Train"
    if wanted == "Train" and spec.adapter != earlier.spec.adapter:
        return Reason.INVALID_SPEC, (
            f"adapter is not as in FineTuneJob {name}, whose adapter goes on training:"
            " copy it from there, or begin a new one with model.parentAdapter: Merge"
        )
    base = Model.model_validate(job_file(earlier).base.to_dict())
    return WarmStart(job=name, model=base, artifact=artifact, parent_adapter=wanted)


def find_problem(
    spec: FineTuneJobSpec, base: Model, server: ServerView | None, *, server_is_ours: bool
) -> Problem | None:
    """Return why a job may not begin, as a reason and a message; None where it may.

    Args:
        spec: the job's.
        base: the model that its result will belong to.
        server: the ModelServer that the job names or makes, if it exists.
        server_is_ours: whether that server is controlled by this very job.
    """
    serving = spec.serving
    if serving is None:
        return None
    if serving.template is not None:
        if server is not None and not server_is_ours:
            return Reason.CONFLICT, (
                f"ModelServer {server.name} exists and is not this job's:"
                " name it in serving.server, or give the job another name"
            )
        return None
    if server is None:
        return (
            Reason.SERVER_NOT_FOUND,
            f"there is no ModelServer {serving.server}: make it, or correct serving.server",
        )
    if server.spec is None:
        return Reason.SERVER_NOT_FOUND, f"ModelServer {server.name} is invalid: {server.problem}"
    if (server.spec.model.uri, server.spec.model.revision) != (base.uri, base.revision):
        return Reason.SERVER_MISMATCH, (
            f"ModelServer {server.name} serves {_describe(server.spec.model)}, the job trains {_describe(base)}:"
            " an adapter works on its own base model only"
        )
    rank = spec.adapter.low_rank.rank if spec.adapter.low_rank else 0
    if rank > server.spec.lora.max_rank:
        return Reason.SERVER_MISMATCH, (
            f"adapter.{spec.adapter.name}.rank is {rank},"
            f" ModelServer {server.name} takes {server.spec.lora.max_rank} at most"
        )
    return find_fullness(serving.model_name, server)


def _describe(model: Model) -> str:
    return f"{model.uri} at {model.revision}" if model.revision else model.uri


def find_fullness(model_name: str, server: ServerView) -> Problem | None:
    """Return why a server has no room for another model name; None where it has, or hosts the name already."""
    names = [one.name for one in server.status.rollouts]
    if server.spec is None or model_name in names or len(names) < server.spec.lora.max_adapters:
        return None
    return Reason.SERVER_FULL, (
        f"ModelServer {server.name} hosts {len(names)} model names, as many as lora.maxAdapters allows:"
        f" raise it, delete a job of another name, or serve under one of {', '.join(names)[:512]}"
    )
