"""The routes file, which lists the adapters that a server hosts, and the report of its pods about them.

The operator writes `routes.json` into a ConfigMap. The plugin in the server reads it, and reports at LOADED_PATH
what it has loaded. vLLM itself only knows `served_name`s.
"""

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.access import KeyPolicy, RequestLimits
from finetune_api.artifact import ArtifactKind, Bytes, Digest
from finetune_api.contract.untrusted import parse_untrusted
from finetune_api.model import ApiModel, Rule
from finetune_api.modelserver import EngineStatus
from finetune_api.references import BASE_NAME, ModelName, ObjectName
from finetune_api.summaries import Text
from finetune_api.uris import OutputUri

LOADED_PATH = "/finetune/loaded"
"""HTTP path on a server's pod that returns a LoadedReport."""
MAX_LOADED_BYTES = 1 << 20
"""Maximum size of that response."""
MAX_ROUTES = 2 * 256 + 1
"""Maximum number of routes: two versions of each model name, and one version under evaluation."""


def version_name(model_name: str, job: str) -> str:
    """Return the model name by which clients request the version of one FineTuneJob."""
    return f"{model_name}@{job}"


class Route(ApiModel):
    """One version of a public model name: an adapter, or the server's own model."""

    model_name: ModelName
    """Model name that clients send."""
    job: ObjectName
    """FineTuneJob that trained this version."""
    kind: ArtifactKind = "Adapter"
    """An adapter to load, or a whole model, with which the server must have been started."""
    uri: OutputUri
    """Location of the artifact."""
    digest: Digest
    """Expected SHA-256 digest of the directory."""
    bytes: Bytes
    """Expected total size of the files in bytes."""
    weight: Annotated[int, Field(ge=0, le=100)] = 100
    """Share of the name's requests that this version gets, in percent. With 0 only requests for `name@job` reach it."""

    thinking_off: bool | None = None
    """Whether this version was trained with thinking switched off, which requests then default to. Left out if not."""
    chat_template: Digest | None = None
    """Digest of the `model.chatTemplate` that this version was trained with. Left out if it has none."""
    is_hidden: bool = False
    """Whether the version is under evaluation: it is not listed, and only requests for `name@job` reach it."""

    @property
    def version_name(self) -> str:
        """Model name by which clients request exactly this version: `name@job`."""
        return version_name(self.model_name, self.job)

    @property
    def served_name(self) -> str:
        """Model name in vLLM. An adapter with new content has a new name."""
        return BASE_NAME if self.kind == "Model" else f"{self.model_name}--{self.digest.removeprefix('sha256:')[:12]}"

    rules = (
        Rule(
            f"self.modelName != '{BASE_NAME}'",
            f"modelName {BASE_NAME} is reserved for the base model, choose another",
            lambda route: route.model_name != BASE_NAME,
        ),
    )


class Routes(ApiModel):
    """All versions that a server hosts besides its base model, and its access rules."""

    routes: Annotated[list[Route], Field(max_length=MAX_ROUTES)]
    """One entry per version, grouped by model name, newest first."""
    keys: Annotated[list[KeyPolicy], Field(max_length=64)] = []
    """Restrictions of API keys."""
    limits: RequestLimits = RequestLimits()
    """Limits of a single request."""
    chat_template: Digest | None = None
    """Digest of the `model.chatTemplate` with which a pod must start, once that is known."""


class LoadedModel(ApiModel):
    """State of one route on one pod."""

    model_name: Annotated[str, Field(max_length=63)]
    job: Annotated[str, Field(max_length=63)] = ""
    digest: Digest
    state: Literal["Loading", "Loaded", "Refused"]
    weight: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the name's requests that this pod gives to the version, in percent. None from an older server."""
    message: Text = ""
    """Why the adapter was refused, if `state` is Refused."""
    requests: Annotated[int, Field(ge=0)] = 0
    """Number of requests that the version has answered since the pod started."""
    errors: Annotated[int, Field(ge=0)] = 0
    """Number of these requests with a status of 500 or above."""
    seconds: Annotated[float, Field(ge=0, le=1e12)] = 0
    """Total duration of these requests in seconds."""


class LoadedReport(ApiModel):
    """State of all routes on one pod, and how it reads answers."""

    models: Annotated[list[LoadedModel], Field(max_length=MAX_ROUTES)]
    chat_template: Digest | None = None
    """Digest of the `model.chatTemplate` that the pod started with. Left out if the server has none."""
    engine: EngineStatus | None = None
    """The parsers that the pod uses. None from an older server."""

    @cached_property
    def by_version(self) -> dict[tuple[str, str, str], LoadedModel]:
        """The models by model name, job and digest. Of duplicates the last one counts."""
        return {(model.model_name, model.job, model.digest): model for model in self.models}


def parse_loaded(text: str) -> LoadedReport | None:
    """Return the report in the response of a server's pod; None if it is invalid."""
    return parse_untrusted(LoadedReport, text, MAX_LOADED_BYTES)
