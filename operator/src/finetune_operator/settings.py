"""The administrator's settings: images, GPUs, storage, sources, limits, network. The chart writes the file."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

import yaml
from finetune_api.budget import DEFAULT_CURRENCY, Currency
from finetune_api.compute import Toleration
from finetune_api.contract.jobfile import describe_errors
from finetune_api.estimate import GpuKind
from finetune_api.hosts import HOST_ENTRY
from finetune_api.quantity import Quantity, parse_quantity
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class Images(_Part):
    """The images of the pods; users cannot choose others."""

    trainer: str
    serving: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: list[str] = []


class Gpu(_Part):
    """The GPUs of the cluster, and what pods that request some need."""

    resource_name: str = "nvidia.com/gpu"
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    kinds: list[GpuKind] = []
    """GPU models for estimates; the first whose node labels a pod selects applies."""
    currency: Currency = DEFAULT_CURRENCY
    """Currency of the prices of `kinds`."""

    def find_kind(self, node_selector: dict[str, str]) -> GpuKind | None:
        """Return the kind of GPU that a pod with this node selector gets; None if the settings do not describe it."""
        selected = (self.node_selector | node_selector).items()
        return next((kind for kind in self.kinds if kind.node_selector.items() <= selected), None)


class Artifacts(_Part):
    """The PersistentVolumeClaim that the operator creates in a namespace for jobs without an `output`."""

    storage_class_name: str = ""
    size: str = "20Gi"
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"


def _check_positive(quantity: str) -> str:
    """Return a quantity greater than 0; raise a ValueError otherwise: the kubelet treats a limit of 0 as no limit."""
    if not parse_quantity(quantity):
        raise ValueError("must be greater than 0")
    return quantity


class SmallStages(_Part):
    """The requests of the stages that check data, copy a result, or evaluate on a server."""

    cpu: Annotated[Quantity, AfterValidator(_check_positive)] = "1"
    memory: Annotated[Quantity, AfterValidator(_check_positive)] = "3Gi"
    """Also the limit."""


def _check_network(text: str) -> str:
    """Return the text if it is a network, such as `10.0.0.0/8`; raise a ValueError otherwise."""
    ip_network(text)
    return text


class Sources(_Part):
    """The allowed sources of data."""

    https_hosts: list[Annotated[str, Field(pattern=HOST_ENTRY)]] = []
    """Hosts of `https://` data; `*.example.com` allows every host below that domain that has a public address."""


class Limit(_Part):
    """The limits of a namespace; None means unlimited."""

    gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs of all stage pods together."""
    jobs: Annotated[int, Field(ge=0)] | None = None
    """FineTuneJobs that have started and have neither ended nor been suspended."""


class Limits(_Part):
    """The limits of all namespaces."""

    default: Limit = Limit()
    """For every namespace that `namespaces` does not list."""
    namespaces: dict[str, Limit] = {}
    """By name; an entry replaces `default` as a whole."""

    def of(self, namespace: str) -> Limit:
        """Return a namespace's limit."""
        return self.namespaces.get(namespace, self.default)


class Network(_Part):
    """The network access of the pods of jobs."""

    isolate_jobs: bool = True
    """Whether the operator creates NetworkPolicies for the stages of jobs."""
    blocked: list[Annotated[str, AfterValidator(_check_network)]] = ["169.254.169.254/32", "fd00:ec2::254/128"]
    """Networks that fetching pods may not reach; by default cloud metadata services, which hand out credentials."""


class Settings(_Part):
    """The settings file."""

    images: Images
    gpu: Gpu = Gpu()
    artifacts: Artifacts = Artifacts()
    small_stages: SmallStages = SmallStages()
    sources: Sources = Sources()
    limits: Limits = Limits()
    network: Network = Network()
    resync_seconds: Annotated[float, Field(gt=0)] = 60
    """Seconds between two resyncs; longer if there are many objects (`resync.py`)."""
    log_level: Literal["Debug", "Info", "Warning"] = "Info"


def read_settings(path: Path) -> Settings:
    """Read the settings.

    Raises:
        ValueError: the file is missing or invalid; the message names the field.
    """
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text()) or {})
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    except ValidationError as error:
        raise ValueError(f"{path}: {describe_errors(error)}") from None
