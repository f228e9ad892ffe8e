"""The routes file that tells a server which adapters to host, and what its pods answer about them.

The operator writes `routes.json` into a ConfigMap; the plugin in the server reads it and answers
LOADED_PATH with what is really loaded. vLLM itself sees only `served_name`s.
"""

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.access import KeyPolicy, RequestLimits
from finetune_api.artifact import ArtifactKind, Bytes, Digest
from finetune_api.contract.untrusted import parse_untrusted
from finetune_api.model import ApiModel, Rule
from finetune_api.references import BASE_NAME, ModelName, ObjectName
from finetune_api.summaries import Text
from finetune_api.uris import OutputUri

LOADED_PATH = "/finetune/loaded"
"""Path on a server's pod that answers a LoadedReport."""
MAX_LOADED_BYTES = 1 << 20
"""Bytes of that answer at most."""
MAX_ROUTES = 2 * 256 + 1
"""Two versions of each model name that a server may host, and one that it evaluates."""


def version_name(model_name: str, job: str) -> str:
    """Return the name under which clients ask for the very version that a FineTuneJob trained."""
    return f"{model_name}@{job}"


class Route(ApiModel):
    """One version of a public model name: an adapter, or the server's own model."""

    model_name: ModelName
    """The name that clients ask for."""
    job: ObjectName
    """The FineTuneJob that trained it."""
    kind: ArtifactKind = "Adapter"
    """An adapter to load, or a whole model, which the server must have been started with."""
    uri: OutputUri
    """Where it lies."""
    digest: Digest
    """What its directory must hold."""
    bytes: Bytes
    """Size of its files together."""
    weight: Annotated[int, Field(ge=0, le=100)] = 100
    """Its share of the name's requests in percent; with 0 it is loaded, and asked for as `name@job` only."""

    is_hidden: bool = False
    """Whether it is not proven yet: it is listed nowhere and answers to `name@job` only."""

    @property
    def version_name(self) -> str:
        """The name under which clients ask for this very version."""
        return version_name(self.model_name, self.job)

    @property
    def served_name(self) -> str:
        """The name under which vLLM knows it; an adapter of new content has a new name."""
        return BASE_NAME if self.kind == "Model" else f"{self.model_name}--{self.digest.removeprefix('sha256:')[:12]}"

    rules = (
        Rule(
            f"self.modelName != '{BASE_NAME}'",
            f"modelName {BASE_NAME} is the base model's own",
            lambda route: route.model_name != BASE_NAME,
        ),
    )


class Routes(ApiModel):
    """Everything that a server hosts beside its base model."""

    routes: Annotated[list[Route], Field(max_length=MAX_ROUTES)]
    """One entry for each version, those of a name beside each other, newest first."""
    keys: Annotated[list[KeyPolicy], Field(max_length=64)] = []
    """Limits of API keys."""
    limits: RequestLimits = RequestLimits()
    """How much one request may ask for."""


class LoadedModel(ApiModel):
    """What one pod says of one route."""

    model_name: Annotated[str, Field(max_length=63)]
    job: Annotated[str, Field(max_length=63)] = ""
    digest: Digest
    state: Literal["Loading", "Loaded", "Refused"]
    weight: Annotated[int, Field(ge=0, le=100)] | None = None
    """Its share of the name's requests in percent, as this pod divides them; None from an older server."""
    message: Text = ""
    """Why the adapter was refused."""
    requests: Annotated[int, Field(ge=0)] = 0
    """Requests that it has answered, since the pod began."""
    errors: Annotated[int, Field(ge=0)] = 0
    """How many of them with a status of 500 and above."""
    seconds: Annotated[float, Field(ge=0, le=1e12)] = 0
    """How long they took, together."""


class LoadedReport(ApiModel):
    """What one pod says of all its routes."""

    models: Annotated[list[LoadedModel], Field(max_length=MAX_ROUTES)]

    @cached_property
    def by_version(self) -> dict[tuple[str, str, str], LoadedModel]:
        """What it says of each model name, job and digest; the last word counts."""
        return {(one.model_name, one.job, one.digest): one for one in self.models}


def parse_loaded(text: str) -> LoadedReport | None:
    """Return what a server's pod answers, or None where it is no such report."""
    return parse_untrusted(LoadedReport, text, MAX_LOADED_BYTES)
