"""What the administrator decides: images, the GPU's resource name, storage. Written by the chart."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

import yaml
from finetune_api.budget import DEFAULT_CURRENCY, Currency
from finetune_api.compute import Toleration
from finetune_api.contract.jobfile import describe_errors
from finetune_api.estimate import GpuKind
from finetune_api.hosts import HOST_ENTRY
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class Images(_Part):
    """The images of the pods; no manifest can name another."""

    trainer: str
    serving: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: list[str] = []


class Gpu(_Part):
    """What is added to pods that ask for GPUs."""

    resource_name: str = "nvidia.com/gpu"
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    kinds: list[GpuKind] = []
    """The GPUs that the cluster has, for estimates; the first whose labels a pod asks for is taken."""
    currency: Currency = DEFAULT_CURRENCY
    """Currency of the prices of `kinds`."""

    def find_kind(self, node_selector: dict[str, str]) -> GpuKind | None:
        """Return the kind of GPU that a pod with this node selector gets, as far as it was described."""
        asked = (self.node_selector | node_selector).items()
        return next((kind for kind in self.kinds if kind.node_selector.items() <= asked), None)


class Artifacts(_Part):
    """The claim that is made in a namespace for jobs without an `output`."""

    storage_class_name: str = ""
    size: str = "20Gi"
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"


def _check_network(text: str) -> str:
    """Check that a text is a network, such as `10.0.0.0/8`."""
    ip_network(text)
    return text


class Sources(_Part):
    """Where data may come from."""

    https_hosts: list[Annotated[str, Field(pattern=HOST_ENTRY)]] = []
    """Hosts of `https://` data; `*.` and a domain stands for every host below it that has a public address."""


class Limit(_Part):
    """What a namespace may have at a time; what is left out has no limit."""

    gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs of all pods of stages."""
    jobs: Annotated[int, Field(ge=0)] | None = None
    """FineTuneJobs at work: begun, and neither ended nor suspended."""


class Limits(_Part):
    """What namespaces may have at a time."""

    default: Limit = Limit()
    """For each namespace that is not named."""
    namespaces: dict[str, Limit] = {}
    """By name; such an entry stands in place of `default`, as a whole."""

    def of(self, namespace: str) -> Limit:
        """Return a namespace's limit."""
        return self.namespaces.get(namespace, self.default)


class Network(_Part):
    """What the pods of jobs may reach."""

    isolate_jobs: bool = True
    """Whether NetworkPolicies are made for the stages of jobs."""
    blocked: list[Annotated[str, AfterValidator(_check_network)]] = ["169.254.169.254/32", "fd00:ec2::254/128"]
    """Networks that nothing which fetches may reach; by default where clouds hand out a node's credentials."""


class Settings(_Part):
    """The whole file."""

    images: Images
    gpu: Gpu = Gpu()
    artifacts: Artifacts = Artifacts()
    sources: Sources = Sources()
    limits: Limits = Limits()
    network: Network = Network()
    audit_seconds: Annotated[float, Field(gt=0)] = 60
    """Seconds between two complete lists of everything; longer where there are many objects (`audit.py`)."""
    log_level: Literal["Debug", "Info", "Warning"] = "Info"


def read_settings(path: Path) -> Settings:
    """Read the settings.

    Raises:
        ValueError: the file is missing or wrong; the message names the field.
    """
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text()) or {})
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    except ValidationError as error:
        raise ValueError(f"{path}: {describe_errors(error)}") from None
