"""ModelServer: one base model on vLLM that hosts the adapters of many FineTuneJobs."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_api.access import Auth, RequestLimits
from finetune_api.artifact import Digest
from finetune_api.compute import Placement
from finetune_api.conditions import Conditions
from finetune_api.model import ApiModel, Rule
from finetune_api.references import ObjectName, SecretRef
from finetune_api.rollout import RolloutStatus
from finetune_api.training import LORA_RANKS
from finetune_api.uris import ModelUri

Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*$", max_length=128)]

NAME_RULE = Rule(
    "self.metadata.name.matches('^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$')",
    "metadata.name: at most 40 lower-case letters, digits and dashes, a letter first",
)
"""Children carry the name with a suffix, and Services must begin with a letter."""


class Model(ApiModel):
    """A base model."""

    uri: ModelUri
    """Where it lies: `hf://org/name`, `s3://bucket/prefix` or `pvc://claim/path`."""
    revision: Revision | None = None
    """Branch, tag or commit on the hub."""
    secret_ref: SecretRef | None = None
    """Secret for a private or gated model on the hub, or for the bucket."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.uri.startsWith('hf://') || !has(self.revision)",
            "revision is for models on the hub (hf://)",
            lambda model: model.uri.startswith("hf://") or model.revision is None,
        ),
        Rule(
            "self.uri.startsWith('hf://') || self.uri.startsWith('s3://') || !has(self.secretRef)",
            "secretRef is for models that are fetched (hf://, s3://)",
            lambda model: model.uri.startswith(("hf://", "s3://")) or model.secret_ref is None,
        ),
    )


class EngineSettings(ApiModel):
    """Settings of vLLM that may be chosen."""

    max_model_len: Annotated[int, Field(ge=128, le=1_048_576)] | None = None
    """Tokens of prompt and answer together; without it what the model declares."""
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """What is computed in; without it what the model's weights are in, on CPUs float32."""
    quantization: Literal["fp8"] | None = None
    """What the weights are turned into while they are loaded; a model that is quantised says so itself."""
    kv_cache_dtype: Literal["fp8"] | None = None
    """What the cache of keys and values is kept in; without it as `dtype`."""
    enable_prefix_caching: bool = True
    """Whether prompts that begin alike are computed once."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=16)] = 1
    """GPUs of a pod that share each layer."""
    gpu_memory_utilization: Annotated[float, Field(ge=0.1, le=0.98)] | None = None
    """Share of a GPU's memory for weights, adapters and cache; without it vLLM's own."""
    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Requests that are computed at a time; without it vLLM's own."""


class LoraSettings(ApiModel):
    """Room for adapters; vLLM reserves it at start."""

    max_rank: Annotated[int, Field(json_schema_extra={"enum": list(LORA_RANKS)})] = 64
    """Largest rank of an adapter: 8, 16, 32, 64, 128, 256, 320 or 512."""
    max_adapters: Annotated[int, Field(ge=1, le=256)] = 8
    """How many model names the server hosts. On the GPU there is room for as many adapters; in the pod's memory for
    twice as many and two more, since of each name the version before stays loaded, and one is evaluated."""


class Autoscaling(ApiModel):
    """Pods that come and go with the requests. It needs a metrics adapter that serves `finetune_requests_in_flight`."""

    min_replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods at least."""
    max_replicas: Annotated[int, Field(ge=1, le=64)]
    """Pods at most."""
    requests_per_pod: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Requests at a time in the mean above which a pod is added."""

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas is above maxReplicas",
            lambda autoscaling: autoscaling.min_replicas <= autoscaling.max_replicas,
        ),
    )


class ServerTemplate(Placement):
    """What a server is made of, beside its model."""

    replicas: Annotated[int, Field(ge=0, le=64)] = 1
    """How many pods serve, without `autoscaling`."""
    autoscaling: Autoscaling | None = None
    """How many pods serve, by the requests."""
    engine: EngineSettings = EngineSettings()
    """Settings of vLLM."""
    lora: LoraSettings = LoraSettings()
    """Room for adapters."""
    model_cache: ObjectName | None = None
    """Claim that keeps a model which is fetched (hf://, s3://), so that the next pod needs no download; several pods on
    several nodes need ReadWriteMany. Whoever may write to it decides what is served."""
    auth: Auth | None = None
    """API keys; without it whoever reaches the server may ask."""
    limits: RequestLimits = RequestLimits()
    """How much one request may ask for."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *Placement.rules,
        Rule(
            "!has(self.engine) || self.engine.tensorParallelSize == 1"
            " || self.engine.tensorParallelSize <= self.resources.gpus",
            "engine.tensorParallelSize is above resources.gpus",
            lambda template: template.engine.tensor_parallel_size <= max(1, template.resources.gpus),
        ),
    )


class ModelServerSpec(ServerTemplate):
    """What should be served."""

    model: Model
    """The base model; it cannot be changed, since adapters belong to it."""
    pins: Annotated[dict[str, ObjectName], Field(max_length=256)] = {}
    """By model name the FineTuneJob whose result answers, whatever was proven later: the way back to an earlier one."""

    rules = (
        *ServerTemplate.rules,
        Rule("self.model == oldSelf.model", "model cannot be changed: make another ModelServer"),
    )


class ServedModel(ApiModel):
    """One version of a public model name on the server."""

    name: Annotated[str, Field(max_length=63)]
    """The name that clients ask for."""
    job: Annotated[str, Field(max_length=63)]
    """The FineTuneJob that trained it."""
    digest: Digest
    """Digest of the adapter."""
    weight: Annotated[int, Field(ge=0, le=100)] = 100
    """Its share of the name's requests in percent: the smallest that a ready pod which has loaded it gives it."""
    loaded_pods: Annotated[int, Field(ge=0)]
    """Ready pods that report exactly this adapter as loaded."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why a pod refused it."""


class ModelServerStatus(ApiModel):
    """What is served."""

    observed_generation: int = 0
    """Generation of the spec that this status is about."""
    conditions: Conditions = []
    """Accepted and Ready."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Pods that exist."""
    ready_replicas: Annotated[int, Field(ge=0)] = 0
    """Pods that serve."""
    endpoint: Annotated[str, Field(max_length=253)] | None = None
    """Base URL for OpenAI clients inside the cluster."""
    models: Annotated[list[ServedModel], Field(max_length=512)] = []
    """Every version of every tuned model that the server hosts."""
    rollouts: Annotated[list[RolloutStatus], Field(max_length=256)] = []
    """How far the versions of each model name are."""
    reason: Annotated[str, Field(max_length=64)] | None = None
    """Reason of Ready, for the table."""


class ModelServer(ApiModel):
    """One base model on vLLM that hosts the adapters of many FineTuneJobs.

    Which adapters it hosts follows from the FineTuneJobs that name it and passed their gates.
    """

    spec: ModelServerSpec
    """What should be served."""
    status: ModelServerStatus = ModelServerStatus()
    """What is served; written by the operator alone."""

    rules = (NAME_RULE,)
