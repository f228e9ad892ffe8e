"""FineTuneJobs and ModelServers as typed values, even if a part of them is invalid."""

from dataclasses import dataclass
from typing import Any, TypeVar

from finetune_api.contract.jobfile import describe_errors
from finetune_api.finetunejob import FineTuneJob, FineTuneJobSpec
from finetune_api.jobstatus import FineTuneJobStatus
from finetune_api.model import ApiModel
from finetune_api.modelserver import ModelServer, ModelServerSpec, ModelServerStatus
from finetune_api.warm_start import JobModel
from pydantic import ValidationError

from finetune_operator.kube.kinds import Manifest

_Model = TypeVar("_Model", bound=ApiModel)


@dataclass(frozen=True)
class JobView:
    """A FineTuneJob. `spec` is None if it is invalid; `problem` says why."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: FineTuneJobSpec | None
    problem: str
    status: FineTuneJobStatus
    version: str = ""
    """The object's resource version."""
    created: str = ""
    """`metadata.creationTimestamp`."""


@dataclass(frozen=True)
class ServerView:
    """A ModelServer. `spec` is None if it is invalid; `problem` says why."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: ModelServerSpec | None
    problem: str
    status: ModelServerStatus


def view_job(manifest: Manifest) -> JobView:
    """Return a FineTuneJob; the model that the job recorded for a `finetunejob://` URI replaces the URI."""
    parsed, problem = _parse(FineTuneJob, {"spec": manifest.get("spec")})
    status = _read_status(FineTuneJobStatus, manifest.get("status"))
    spec = parsed.spec if parsed else None
    if spec and status.warm_start:
        spec = spec.model_copy(update={"model": JobModel.model_validate(status.warm_start.model.to_dict())})
    return JobView(
        **_identity(manifest),
        spec=spec,
        problem=problem,
        status=status,
        version=manifest["metadata"].get("resourceVersion", ""),
        created=manifest["metadata"].get("creationTimestamp", ""),
    )


def view_server(manifest: Manifest) -> ServerView:
    """Return a ModelServer."""
    parsed, problem = _parse(ModelServer, {"spec": manifest.get("spec")})
    status = _read_status(ModelServerStatus, manifest.get("status"))
    return ServerView(
        **_identity(manifest),
        spec=parsed.spec if parsed else None,
        problem=problem,
        status=status,
    )


def _parse(model: type[_Model], value: Any) -> tuple[_Model | None, str]:
    """Return a parsed object; None and the validation errors if it is invalid."""
    try:
        return model.model_validate(value), ""
    except ValidationError as error:
        return None, describe_errors(error)


def _read_status(model: type[_Model], value: Any) -> _Model:
    """Return a status without its invalid parts, which another version or another writer may have left."""
    readable = dict(value) if isinstance(value, dict) else {}
    while True:
        try:
            return model.model_validate(readable)
        except ValidationError as error:
            field, *path = error.errors(include_url=False, include_input=False)[0]["loc"]
            if isinstance(readable[str(field)], list) and path:
                readable[str(field)] = [item for index, item in enumerate(readable[str(field)]) if index != path[0]]
            else:
                del readable[str(field)]


def _identity(manifest: Manifest) -> dict[str, Any]:
    return {name: manifest["metadata"][name] for name in ("name", "namespace", "uid", "generation")}
