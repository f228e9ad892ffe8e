"""FineTuneJob: base model, data, method, compute, evaluation, and the model name to serve under."""

from typing import Annotated, Any

from pydantic import Field
from pydantic.alias_generators import to_camel

from finetune_api.budget import Budget
from finetune_api.compute import Compute
from finetune_api.data import METHOD_FORMATS, Dataset, Format
from finetune_api.evaluation import Evaluation
from finetune_api.graders import Grader
from finetune_api.jobstatus import FineTuneJobStatus
from finetune_api.model import ApiModel, Rule
from finetune_api.modelserver import NAME_RULE, ServerTemplate
from finetune_api.output import Output
from finetune_api.references import BASE_NAME, ModelName, ObjectName
from finetune_api.rollout import Rollout
from finetune_api.tracking import Tracking
from finetune_api.training import Adapter, Hyperparameters, Method
from finetune_api.warm_start import JobModel

MUTABLE_FIELDS = ("suspend", "approved", "ttl_seconds_after_finished")
"""The mutable fields of a spec, besides `serving.rollout`. They control when work runs, not what the work is."""
_SCHEDULING_FIELDS = {*MUTABLE_FIELDS, "priority", "active_deadline_seconds"}
"""The fields that do not affect the result of the work."""
_IMMUTABLE_MESSAGE = (
    f"only {', '.join(map(to_camel, MUTABLE_FIELDS))} and serving.rollout can be changed: create another FineTuneJob"
)


class Serving(ApiModel):
    """How the tuned model is served: the model name, and a shared server or one of the job's own."""

    model_name: ModelName
    """Model name that clients send. It stays the same for all versions."""
    server: ObjectName | None = None
    """Name of a ModelServer in the same namespace that serves the same base model."""
    template: ServerTemplate | None = None
    """Settings of a ModelServer of the job's own. It has the job's name and is deleted with the job."""
    rollout: Rollout | None = None
    """How traffic shifts from the version that serves under the name to this one. It can be changed at any time.
    Default: all at once."""

    immutable = ("model_name", "server", "template")
    immutable_message = _IMMUTABLE_MESSAGE
    rules = (
        Rule(
            "has(self.server) != has(self.template)",
            "set exactly one of server and template",
            lambda serving: (serving.server is None) != (serving.template is None),
        ),
        Rule(
            f"self.modelName != '{BASE_NAME}'",
            f"modelName {BASE_NAME} is reserved for the base model, choose another",
            lambda serving: serving.model_name != BASE_NAME,
        ),
    )


def _format_fits_method(method: str, formats: tuple[Format, ...]) -> Rule:
    """Return the rule that the format of each source of data is one that the method accepts."""
    fields = [
        f"(!has(self.dataset.{name}) || !has(self.dataset.{name}.format)"
        f" || self.dataset.{name}.format in {list(formats)})"
        for name in ("train", "validation")
    ]
    mix = (
        "(!has(self.dataset.mix) || self.dataset.mix.all(source,"
        f" !has(source.format) || source.format in {list(formats)}))"
    )

    def holds(spec: "FineTuneJobSpec") -> bool:
        sources = (*spec.dataset.sources.values(), spec.dataset.validation)
        names = {source.format for source in sources if source and source.format}
        return spec.method.name != method or names <= set(formats)

    return Rule(
        f"!has(self.method.{method}) || {' && '.join([*fields, mix])}",
        f"method.{method} needs data with a format of {', '.join(formats)}",
        holds,
    )


def _rank_fits_template(adapter: str) -> Rule:
    """Return the rule that the job's own server accepts the adapter's rank."""

    def holds(spec: "FineTuneJobSpec") -> bool:
        template = spec.serving.template if spec.serving else None
        low_rank = spec.adapter.low_rank
        return (
            template is None
            or low_rank is None
            or spec.adapter.name != adapter
            or low_rank.rank <= template.lora.max_rank
        )

    return Rule(
        f"!has(self.adapter.{adapter}) || !has(self.serving) || !has(self.serving.template)"
        f" || self.adapter.{adapter}.rank <= self.serving.template.lora.maxRank",
        f"adapter.{adapter}.rank must not be greater than serving.template.lora.maxRank",
        holds,
    )


class FineTuneJobSpec(ApiModel):
    """What to train, how to evaluate it, and where to serve it."""

    model: JobModel
    """The base model, or the result of a parent job."""
    dataset: Dataset
    """The training data and the held-out data for the evaluation."""
    method: Method
    """The training method."""
    adapter: Adapter
    """What is trained: a low-rank adapter or the model's own weights."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """Hyperparameters of the training. Omitted fields get their default or are chosen after the data check."""
    compute: Compute = Compute()
    """Resources and placement of the training and evaluation pods."""
    evaluation: Evaluation = Evaluation()
    """How the tuned model is evaluated, and which gates it must pass before it is served."""
    output: Output | None = None
    """Where the results are written. Default: the claim `finetune-artifacts`, which the operator creates."""
    tracking: Tracking | None = None
    """Experiment trackers that receive the metrics of the training. Default: none."""
    serving: Serving | None = None
    """How the tuned model is served. Default: it is not served, and the job completes when all gates have passed."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """Maximum number of retries of a stage that failed for a transient reason. Disruptions do not count."""
    budget: Budget | None = None
    """Limit on the cost of the training. Default: no limit."""
    approved: bool = False
    """Approves a job that waits because of its budget. It can be set at any time; after the training has started,
    setting it back to false has no effect."""
    suspend: bool = False
    """Stops the running stage after a checkpoint and starts no other stage until it is false again. This uses no retry
    and does not affect serving."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Priority among the jobs that wait for the quota of their namespace; the highest starts first. It never stops a
    running job; for pods see `compute.priorityClassName`."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Maximum total run time of all stages in seconds, after which the job fails. Time counts while a stage's Job
    exists and has not ended, even if it waits for a node; not while the job is suspended, queued by Kueue or
    between attempts. Default: no limit."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Seconds after which the FineTuneJob is deleted once it failed, completed without serving, or no server holds its
    result any more because newer versions replaced it. The artifact is kept. Default: it is not deleted."""

    immutable = tuple(name for name in __annotations__ if name not in (*MUTABLE_FIELDS, "serving"))
    immutable_message = _IMMUTABLE_MESSAGE
    rules = (
        Rule("has(self.serving) == has(oldSelf.serving)", f"serving: {_IMMUTABLE_MESSAGE}"),
        *(_format_fits_method(method, formats) for method, formats in METHOD_FORMATS.items()),
        *(_rank_fits_template(adapter) for adapter in ("lora", "qlora", "rslora")),
        Rule(
            "has(self.method.sft) || !has(self.hyperparameters) || (!has(self.hyperparameters.neftuneNoiseAlpha)"
            " && self.hyperparameters.labelSmoothing == 0.0)",
            "hyperparameters.neftuneNoiseAlpha and labelSmoothing can only be set with method.sft",
            lambda spec: (
                spec.method.sft is not None
                or (spec.hyperparameters.neftune_noise_alpha is None and spec.hyperparameters.label_smoothing == 0.0)
            ),
        ),
        Rule(
            "!has(self.method.grpo) || !has(self.hyperparameters) || !has(self.hyperparameters.earlyStopping)",
            "hyperparameters.earlyStopping watches the loss, which shows no progress with method.grpo: leave it out",
            lambda spec: spec.method.grpo is None or spec.hyperparameters.early_stopping is None,
        ),
        Rule(
            "!(has(self.adapter.dora) || has(self.adapter.qlora)) || !has(self.compute)"
            " || self.compute.parallelism == 'DDP'",
            "adapter.dora and adapter.qlora cannot be sharded: use compute.parallelism DDP",
            lambda spec: not (spec.adapter.dora or spec.adapter.qlora) or spec.compute.parallelism == "DDP",
        ),
        Rule(
            "!has(self.method.reward) || !has(self.serving)",
            "method.reward trains a model that generates no text and cannot be served: leave serving out",
            lambda spec: spec.method.reward is None or spec.serving is None,
        ),
        Rule(
            "!has(self.method.reward) || !has(self.adapter.qlora)",
            "method.reward produces a whole model, into which adapter.qlora cannot be merged: use adapter.lora",
            lambda spec: spec.method.reward is None or spec.adapter.qlora is None,
        ),
        Rule(
            "!(has(self.adapter.dora) || has(self.adapter.full)) || !has(self.serving) || !has(self.serving.server)",
            "adapter.dora and adapter.full produce a whole model, which needs its own server: use serving.template",
            lambda spec: not spec.adapter.is_merged or spec.serving is None or spec.serving.server is None,
        ),
        Rule(
            "!(has(self.adapter.dora) || has(self.adapter.full) || has(self.method.reward)) || !has(self.output)"
            " || !self.output.merged",
            "output.merged is for adapters: leave it out with adapter.dora, adapter.full and method.reward",
            lambda spec: not (spec.produces_model and spec.output and spec.output.merged),
        ),
    )

    @property
    def produces_model(self) -> bool:
        """Whether the result is a whole model: a merged adapter, full weights, or a reward model."""
        return self.adapter.is_merged or self.method.reward is not None

    @property
    def graders(self) -> list[Grader]:
        """Return the graders of the evaluation: `evaluation.graders`, or those of `method.grpo`."""
        return self.evaluation.graders or (self.method.grpo.graders if self.method.grpo else [])

    def dump_without_scheduling(self) -> dict[str, Any]:
        """Return the spec as JSON types, without the fields that only control when work runs."""
        excluded: dict[str, Any] = dict.fromkeys(_SCHEDULING_FIELDS, True) | {"serving": {"rollout"}}
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=excluded)


class FineTuneJob(ApiModel):
    """Fine-tunes a language model, evaluates the result on held-out data, and serves it under a stable name."""

    spec: FineTuneJobSpec
    """What to train, how to evaluate it, and where to serve it."""
    status: FineTuneJobStatus = FineTuneJobStatus()
    """Observed state of the job. Only the operator writes it."""

    rules = (NAME_RULE,)
