"""FineTuneJob: base model, data, method, hardware, how good is good enough, and the name to serve under."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.compute import Compute
from finetune_api.jobstatus import FineTuneJobStatus
from finetune_api.model import ApiModel, Rule
from finetune_api.modelserver import NAME_RULE, Model, ObjectName, Revision, SecretRef, ServerTemplate
from finetune_api.routes import BASE_NAME
from finetune_api.uris import DATA_URI, OUTPUT_URI

Metric = Literal["Perplexity", "ExactMatch", "RougeL"]


Format = Literal["Chat", "PromptCompletion", "Instruction", "Text", "Preference", "UnpairedPreference", "Prompt"]
"""What the rows of a data file are."""
SFT_FORMATS: tuple[Format, ...] = ("Chat", "PromptCompletion", "Instruction", "Text")
"""What supervised fine-tuning learns from."""


class DataSource(ApiModel):
    """A file with examples, or a directory with several: JSONL, JSON, CSV, TSV or Parquet, plain or compressed."""

    uri: Annotated[str, Field(pattern=DATA_URI, max_length=512)]
    """Where it lies: `pvc://claim/path`, `configmap://name/key`, `hf://org/name` of a dataset or a path in it."""
    revision: Revision | None = None
    """Branch, tag or commit on the hub."""
    secret_ref: SecretRef | None = None
    """Secret with the token for a private dataset on the hub."""

    rules = (
        Rule(
            "self.uri.startsWith('hf://') || (!has(self.revision) && !has(self.secretRef))",
            "revision and secretRef are for datasets on the hub (hf://)",
            lambda source: source.uri.startswith("hf://") or (source.revision is None and source.secret_ref is None),
        ),
    )


class Dataset(ApiModel):
    """What to train on and what to keep for the proof."""

    train: DataSource
    """Conversations to train on."""
    validation: DataSource | None = None
    """Held-out conversations for the evaluation; never trained on."""
    format: Format | None = None
    """What the rows are: `Chat` (OpenAI's messages, with tools), `PromptCompletion`, `Instruction` (Alpaca's fields) or
    `Text`; without it what the fields of the first row say."""
    holdout: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Fraction of `train` kept for the evaluation instead; 0.1 when neither is given."""

    rules = (
        Rule(
            "!(has(self.validation) && has(self.holdout))",
            "give validation or holdout, not both",
            lambda dataset: dataset.validation is None or dataset.holdout is None,
        ),
    )


class Sft(ApiModel):
    """Supervised fine-tuning on the assistant's turns."""

    packing: bool = True
    """Put several short conversations into one sequence; faster, the same loss."""


class Method(ApiModel):
    """How to train; exactly one."""

    sft: Sft | None = None
    """Supervised fine-tuning."""

    rules = (Rule("has(self.sft)", "choose a method: sft", lambda method: method.sft is not None),)


class Lora(ApiModel):
    """Low-rank adaptation."""

    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank of the update."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """Scale of the update: alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the update, while training."""


class Adapter(ApiModel):
    """What is trained; exactly one."""

    lora: Lora | None = None
    """A LoRA adapter on all linear layers but the output layer."""

    rules = (Rule("has(self.lora)", "choose an adapter: lora", lambda adapter: adapter.lora is not None),)


class Hyperparameters(ApiModel):
    """How the optimizer runs. What is left out is chosen by the trainer and told in its report."""

    epochs: Annotated[float, Field(gt=0, le=50)] | None = None
    """Passes over the data; by default 3, more for under 34 examples, fewer for over 8,333."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak learning rate of AdamW."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    """Sequences in one optimizer step, over all devices."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Sequences on a device at a time; must divide the batch size. By default 8 at most."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Fraction of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight decay of AdamW."""
    max_length: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Tokens of a sequence; longer conversations lose their tail."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seed of the split, the order and the initial adapter."""

    rules = (
        Rule(
            "!has(self.microBatchSize) || self.batchSize % self.microBatchSize == 0",
            "microBatchSize must divide batchSize",
            lambda values: values.micro_batch_size is None or values.batch_size % values.micro_batch_size == 0,
        ),
    )


class Gate(ApiModel):
    """How much better than the base model the tuned one must be on one metric.

    The lower end of the 95 % interval of the gain decides, so luck does not pass.
    """

    metric: Metric
    """Perplexity (lower is better), ExactMatch or RougeL (higher is better)."""
    relative_to: Literal["Base"] = "Base"
    """What the tuned model is compared with."""
    min_gain: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least gain: for Perplexity the fraction by which it falls, else the difference of the scores."""
    max_loss: Annotated[float, Field(ge=0, le=1)] | None = None
    """Most that may be lost, on the same scales."""

    rules = (
        Rule(
            "has(self.minGain) != has(self.maxLoss)",
            "give exactly one of minGain and maxLoss",
            lambda gate: (gate.min_gain is None) != (gate.max_loss is None),
        ),
    )


class Evaluation(ApiModel):
    """How good is good enough."""

    gates: Annotated[list[Gate], Field(max_length=8)] = [Gate(metric="Perplexity", min_gain=0)]
    """All must pass before anything is served. By default the perplexity must fall."""
    max_examples: Annotated[int, Field(ge=2, le=10_000)] = 200
    """Held-out conversations used at most."""
    max_answer_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    """Tokens generated for one answer at most."""


class Output(ApiModel):
    """Where the artifact goes."""

    uri: Annotated[str, Field(pattern=OUTPUT_URI, max_length=512)]
    """A claim and a directory on it: `pvc://claim/path`."""


class Serving(ApiModel):
    """Where the tuned model answers."""

    model_name: Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", min_length=1, max_length=48)]
    """The name that clients ask for; it stays the same over all versions."""
    server: ObjectName | None = None
    """A ModelServer in the same namespace that hosts the same base model."""
    template: ServerTemplate | None = None
    """A server of the job's own, named like the job and deleted with it."""

    rules = (
        Rule(
            "has(self.server) != has(self.template)",
            "give exactly one of server and template",
            lambda serving: (serving.server is None) != (serving.template is None),
        ),
        Rule(
            f"self.modelName != '{BASE_NAME}'",
            f"modelName {BASE_NAME} is the base model's own",
            lambda serving: serving.model_name != BASE_NAME,
        ),
    )


class FineTuneJobSpec(ApiModel):
    """What to train, prove and serve."""

    model: Model
    """The base model."""
    dataset: Dataset
    """The data."""
    method: Method
    """How to train."""
    adapter: Adapter
    """What is trained."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """How the optimizer runs."""
    compute: Compute = Compute()
    """The hardware."""
    evaluation: Evaluation = Evaluation()
    """How good is good enough."""
    output: Output | None = None
    """Where the artifact goes; without it to the claim `finetune-artifacts`, which the operator makes."""
    serving: Serving | None = None
    """Under which name to serve; without it the job ends with the proven artifact."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """How often a stage that failed for a passing reason is tried again; disruptions do not count."""

    rules = (
        Rule("self == oldSelf", "the spec cannot be changed: make another FineTuneJob"),
        Rule(
            f"!has(self.dataset.format) || self.dataset.format in {list(SFT_FORMATS)}",
            f"method.sft learns from a dataset.format of {', '.join(SFT_FORMATS)}",
            lambda spec: spec.dataset.format is None or spec.dataset.format in SFT_FORMATS,
        ),
        Rule(
            "!has(self.serving) || !has(self.serving.template)"
            " || self.adapter.lora.rank <= self.serving.template.lora.maxRank",
            "adapter.lora.rank is above serving.template.lora.maxRank",
            lambda spec: (
                spec.serving is None
                or spec.serving.template is None
                or spec.adapter.lora.rank <= spec.serving.template.lora.max_rank
            ),
        ),
    )


class FineTuneJob(ApiModel):
    """Fine-tunes a language model, proves the result on held-out data, and serves it under a stable name."""

    spec: FineTuneJobSpec
    """What to train, prove and serve."""
    status: FineTuneJobStatus = FineTuneJobStatus()
    """What happened so far; written by the operator alone."""

    rules = (NAME_RULE,)
