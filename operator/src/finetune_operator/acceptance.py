"""Whether a job may begin: what can be known before a GPU is spent is checked here. Pure."""

from finetune_api.conditions import Reason
from finetune_api.data import Dataset
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.hosts import explain_refusal, find_entry
from finetune_api.uris import parse_uri

from finetune_operator.observe import ServerView

Problem = tuple[Reason, str]


def find_source_problem(dataset: Dataset, hosts: list[str]) -> Problem | None:
    """Return why data may not be fetched: its host is not one that the administrator lists; None where it may."""
    for source in (dataset.train, dataset.validation):
        uri = parse_uri(source.uri) if source else None
        if uri and uri.scheme == "https" and find_entry(uri.authority, hosts) is None:
            return Reason.ACCESS_DENIED, explain_refusal(str(uri), uri.authority, hosts)
    return None


def find_problem(spec: FineTuneJobSpec, server: ServerView | None, *, server_is_ours: bool) -> Problem | None:
    """Return why a job may not begin, as a reason and a message; None where it may.

    Args:
        spec: the job's.
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
    if (server.spec.model.uri, server.spec.model.revision) != (spec.model.uri, spec.model.revision):
        return Reason.SERVER_MISMATCH, (
            f"ModelServer {server.name} serves {server.spec.model.uri}, the job trains {spec.model.uri}:"
            " an adapter works on its own base model only"
        )
    rank = spec.adapter.low_rank.rank if spec.adapter.low_rank else 0
    if rank > server.spec.lora.max_rank:
        return Reason.SERVER_MISMATCH, (
            f"adapter.{spec.adapter.name}.rank is {rank},"
            f" ModelServer {server.name} takes {server.spec.lora.max_rank} at most"
        )
    return None
