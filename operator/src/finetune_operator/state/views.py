"""FineTuneJobs and ModelServers as values, also where a part of them cannot be read. Pure."""

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
    """A FineTuneJob. `spec` is None where it could not be read; `problem` says why."""

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
    """When it was made, as the API server writes it."""


@dataclass(frozen=True)
class ServerView:
    """A ModelServer. `spec` is None where it could not be read; `problem` says why."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: ModelServerSpec | None
    problem: str
    status: ModelServerStatus


def view_job(manifest: Manifest) -> JobView:
    """Read a FineTuneJob; the model that a `finetunejob://` stood for when it began takes its place."""
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
    """Read a ModelServer."""
    parsed, problem = _parse(ModelServer, {"spec": manifest.get("spec")})
    status = _read_status(ModelServerStatus, manifest.get("status"))
    return ServerView(
        **_identity(manifest),
        spec=parsed.spec if parsed else None,
        problem=problem,
        status=status,
    )


def _parse(model: type[_Model], value: Any) -> tuple[_Model | None, str]:
    """Return a part of the API, or None and what is wrong with it."""
    try:
        return model.model_validate(value), ""
    except ValidationError as error:
        return None, describe_errors(error)


def _read_status(model: type[_Model], value: Any) -> _Model:
    """Return a status; what cannot be read of it, as another version or another writer left it, is not there."""
    left = dict(value) if isinstance(value, dict) else {}
    while True:
        try:
            return model.model_validate(left)
        except ValidationError as error:
            field, *place = error.errors(include_url=False, include_input=False)[0]["loc"]
            if isinstance(left[str(field)], list) and place:
                left[str(field)] = [part for index, part in enumerate(left[str(field)]) if index != place[0]]
            else:
                del left[str(field)]


def _identity(manifest: Manifest) -> dict[str, Any]:
    return {name: manifest["metadata"][name] for name in ("name", "namespace", "uid", "generation")}
