"""ModelServer: one base model on vLLM that serves the adapters of many FineTuneJobs."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_api.access import Auth, RequestLimits
from finetune_api.artifact import Digest
from finetune_api.compute import Placement
from finetune_api.conditions import Conditions
from finetune_api.model import ApiModel, Rule
from finetune_api.references import ObjectName, SecretRef
from finetune_api.rollout import RolloutStatus
from finetune_api.texts import Text
from finetune_api.training import LORA_RANKS
from finetune_api.uris import ConfigMapUri, ModelUri

Revision = Annotated[
    str,
    Text(
        r"^[A-Za-z0-9][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*$",
        "use a branch, a tag or a commit of the repository, such as main or v1.0",
        128,
    ),
]

AUTO, NO_PARSER = "Auto", "None"
ParserName = Annotated[
    str,
    Text(r"^(Auto|None|[a-z][a-z0-9_-]*)$", "use Auto, None or the name of one of vLLM's parsers, such as hermes", 63),
]
"""`Auto`, `None`, or the name of one of vLLM's parsers. Which names exist depends on the vLLM in the server's image."""

NAME_RULE = Rule(
    "self.metadata.name.matches('^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$')",
    "metadata.name must have at most 40 lowercase letters, digits and dashes, and start with a letter",
)
"""Names of children are this name with a suffix, and names of Services must start with a letter."""


class Model(ApiModel):
    """A base model."""

    uri: ModelUri
    """Location of the model: `hf://org/name`, `s3://bucket/prefix` or `pvc://claim/path`."""
    revision: Revision | None = None
    """Branch, tag or commit on the Hugging Face Hub, for `hf://` only. Default: the repository's default branch."""
    secret_ref: SecretRef | None = None
    """Secret with the credentials for a private or gated model on the Hub, or for the bucket."""
    chat_template: ConfigMapUri | None = None
    """Chat template, in Jinja, that renders chats instead of the model's own, in training, evaluation and serving:
    `configmap://name/key`. Default: the chat template of the model."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.uri.startsWith('hf://') || !has(self.revision)",
            "revision can only be set for models on the Hub (hf://)",
            lambda model: model.uri.startswith("hf://") or model.revision is None,
        ),
        Rule(
            "self.uri.startsWith('hf://') || self.uri.startsWith('s3://') || !has(self.secretRef)",
            "secretRef can only be set for models that are downloaded (hf://, s3://)",
            lambda model: model.uri.startswith(("hf://", "s3://")) or model.secret_ref is None,
        ),
    )


class EngineSettings(ApiModel):
    """Settings of the vLLM engine, with vLLM's own names."""

    max_model_len: Annotated[int, Field(ge=128, le=1_048_576)] | None = None
    """Maximum number of tokens of prompt and answer together. Default: what the model's configuration declares."""
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """Data type of weights and activations. Default: that of the model's weights; float32 on CPUs."""
    quantization: Literal["fp8"] | None = None
    """Quantization of the weights while they are loaded. Default: none. A model that is already quantized needs no
    setting."""
    kv_cache_dtype: Literal["fp8"] | None = None
    """Data type of the KV cache. Default: same as `dtype`."""
    enable_prefix_caching: bool = True
    """Whether the KV cache of common prompt prefixes is reused."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=16)] = 1
    """Number of GPUs of a pod over which each layer is split. It cannot exceed `resources.gpus`."""
    gpu_memory_utilization: Annotated[float, Field(ge=0.1, le=0.98)] | None = None
    """Fraction of a GPU's memory that vLLM may use for weights, adapters and KV cache. Default: vLLM's own."""
    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Maximum number of sequences in a batch. Default: vLLM's own."""
    tool_call_parser: ParserName | None = None
    """Name of vLLM's parser for the tool calls in an answer, such as `hermes`. `None`: no parser, and requests with
    `tools` are refused. Default: `Auto`, the parser that reads what the model's chat template writes."""
    reasoning_parser: ParserName | None = None
    """Name of vLLM's parser that moves the reasoning of an answer from `content` to `reasoning`, such as `qwen3`.
    `None`: no parser. Default: `Auto`, the parser that reads what the model's chat template writes."""


class LoraSettings(ApiModel):
    """Number and rank of the adapters that the server can hold. vLLM reserves memory for them at startup."""

    max_rank: Annotated[int, Field(json_schema_extra={"enum": list(LORA_RANKS)})] = 64
    """Maximum rank of an adapter."""
    max_adapters: Annotated[int, Field(ge=1, le=256)] = 8
    """Maximum number of model names on the server, and of adapters in GPU memory. The pod's memory must hold twice as
    many and two more: each name's previous version stays loaded, and one version may be under evaluation."""


class Autoscaling(ApiModel):
    """Scales the pods with the number of requests in flight.

    This needs a metrics adapter that serves the metric `finetune_requests_in_flight`.
    """

    min_replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Minimum number of pods."""
    max_replicas: Annotated[int, Field(ge=1, le=64)]
    """Maximum number of pods."""
    requests_per_pod: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Target average number of requests in flight per pod. Above it pods are added."""

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be greater than maxReplicas",
            lambda autoscaling: autoscaling.min_replicas <= autoscaling.max_replicas,
        ),
    )


class ServerTemplate(Placement):
    """Settings of a server, except for its model."""

    replicas: Annotated[int, Field(ge=0, le=64)] = 1
    """Number of pods. Ignored if `autoscaling` is set."""
    autoscaling: Autoscaling | None = None
    """Scales the pods with the requests. Default: a fixed number of `replicas`."""
    engine: EngineSettings = EngineSettings()
    """Settings of the vLLM engine."""
    lora: LoraSettings = LoraSettings()
    """Number and rank of the adapters that the server can hold."""
    model_cache: ObjectName | None = None
    """PersistentVolumeClaim that caches a downloaded model (hf://, s3://) for later pods. Pods on several nodes need
    ReadWriteMany. Anyone who can write to it can change what is served. Default: each pod downloads the model."""
    auth: Auth | None = None
    """API keys that clients must send. Default: none, and every client that reaches the server has access."""
    limits: RequestLimits = RequestLimits()
    """Limits of a single request."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *Placement.rules,
        Rule(
            "!has(self.engine) || self.engine.tensorParallelSize == 1"
            " || self.engine.tensorParallelSize <= self.resources.gpus",
            "engine.tensorParallelSize must not be greater than resources.gpus",
            lambda template: template.engine.tensor_parallel_size <= max(1, template.resources.gpus),
        ),
    )


class ModelServerSpec(ServerTemplate):
    """The base model and the settings of the server."""

    model: Model
    """The base model. It cannot be changed, because adapters only fit their base model and its chat template."""
    pins: Annotated[dict[str, ObjectName], Field(max_length=256)] = {}
    """Map from a model name to the FineTuneJob whose result serves under it. A pin rolls back to an earlier version and
    pauses rollouts for that name until it is removed."""

    rules = (
        *ServerTemplate.rules,
        Rule("self.model == oldSelf.model", "model cannot be changed: create another ModelServer"),
    )


class ServedModel(ApiModel):
    """One version of a public model name on the server."""

    name: Annotated[str, Field(max_length=63)]
    """Model name that clients send."""
    job: Annotated[str, Field(max_length=63)]
    """FineTuneJob that trained this version."""
    digest: Digest
    """SHA-256 digest of the artifact."""
    weight: Annotated[int, Field(ge=0, le=100)] = 100
    """Share of the name's requests that this version gets, in percent: the lowest among the ready pods that loaded
    it."""
    loaded_pods: Annotated[int, Field(ge=0)]
    """Number of ready pods that report this version as loaded."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why a pod refused to load this version."""


class EngineStatus(ApiModel):
    """Settings of vLLM that the pods of a server choose."""

    tool_call_parser: Annotated[str, Field(max_length=63)]
    """Parser for tool calls; `None` without one."""
    reasoning_parser: Annotated[str, Field(max_length=63)]
    """Parser for reasoning; `None` without one."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why `Auto` found no parser."""


class ModelServerStatus(ApiModel):
    """Observed state of a ModelServer."""

    observed_generation: int = 0
    """Generation of the spec that the operator last observed."""
    conditions: Conditions = []
    """Conditions: `Accepted` and `Ready`."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Number of pods that exist."""
    ready_replicas: Annotated[int, Field(ge=0)] = 0
    """Number of ready pods."""
    endpoint: Annotated[str, Field(max_length=253)] | None = None
    """Base URL for OpenAI clients in the cluster."""
    chat_template: Digest | None = None
    """SHA-256 digest of `model.chatTemplate` when the server got its first adapter or its first ready pod. A pod that
    finds another content does not start."""
    engine: EngineStatus | None = None
    """Settings of vLLM that the pods have chosen."""
    models: Annotated[list[ServedModel], Field(max_length=512)] = []
    """All versions of all tuned models on the server."""
    rollouts: Annotated[list[RolloutStatus], Field(max_length=256)] = []
    """State of the rollout of each model name."""
    reason: Annotated[str, Field(max_length=64)] | None = None
    """Reason of the condition `Ready`, for the column of `kubectl get`."""


class ModelServer(ApiModel):
    """Serves one base model on vLLM, and the adapters of many FineTuneJobs on top of it.

    It serves the adapters of the FineTuneJobs that reference it and have passed their gates.
    """

    spec: ModelServerSpec
    """Desired state of the server."""
    status: ModelServerStatus = ModelServerStatus()
    """Observed state of the server. Only the operator writes it."""

    rules = (NAME_RULE,)
