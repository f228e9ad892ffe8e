"""FineTuneJob: base model, data, method, hardware, how good is good enough, and the name to serve under."""

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
"""The fields of a spec that may be changed, beside `serving.rollout`. They say when work is done, never what."""
_ABOUT_TIME = {*MUTABLE_FIELDS, "priority", "active_deadline_seconds"}
"""The fields that say nothing of what is to be done."""
_ONLY = f"only {', '.join(map(to_camel, MUTABLE_FIELDS))} and serving.rollout can be changed: make another FineTuneJob"


class Serving(ApiModel):
    """Where the tuned model answers."""

    model_name: ModelName
    """The name that clients ask for; it stays the same over all versions."""
    server: ObjectName | None = None
    """A ModelServer in the same namespace that hosts the same base model."""
    template: ServerTemplate | None = None
    """A server of the job's own, named like the job and deleted with it."""
    rollout: Rollout | None = None
    """How the result takes the name over from the one that serves under it; without it at once. It may be changed."""

    immutable = ("model_name", "server", "template")
    immutable_message = _ONLY
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


def _learns_from(method: str, formats: tuple[Format, ...]) -> Rule:
    """Return the rule that a method gets the data that it learns from."""
    return Rule(
        f"!has(self.method.{method}) || !has(self.dataset.format) || self.dataset.format in {list(formats)}",
        f"method.{method} learns from a dataset.format of {', '.join(formats)}",
        lambda spec: spec.method.name != method or spec.dataset.format in (None, *formats),
    )


def _fits_template(adapter: str) -> Rule:
    """Return the rule that the job's own server has room for the adapter's rank."""

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
        f"adapter.{adapter}.rank is above serving.template.lora.maxRank",
        holds,
    )


class FineTuneJobSpec(ApiModel):
    """What to train, prove and serve."""

    model: JobModel
    """The base model, or the result of an earlier job."""
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
    """Where the results go; without it to the claim `finetune-artifacts`, which the operator makes."""
    tracking: Tracking | None = None
    """Where the figures of the training are sent."""
    serving: Serving | None = None
    """Under which name to serve; without it the job ends with the proven artifact."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """How often a stage that failed for a passing reason is tried again; disruptions do not count."""
    budget: Budget | None = None
    """What the training may cost; without it any cost is taken."""
    approved: bool = False
    """Lets a job go on that is held for its budget; it may be set at any time, and holds once the training began."""
    suspend: bool = False
    """Stops the stage that runs, after a checkpoint, and begins no other until it is false again; this costs no retry.
    It stops work, not traffic: what is proven is served, and what serves goes on serving."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Of the jobs that wait for room under the limits of their namespace the one with the highest begins first.
    It stops no job that runs; between pods `compute.priorityClassName` decides."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Seconds that the stages may be at work in all before the job fails. They are counted while a stage's Job is
    there and not ended, also while it waits for a node; not while suspended, in Kueue's queue or between attempts."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Seconds after which the FineTuneJob is deleted once it failed, completed without serving, or no server holds
    its result any more because newer ones took its place; without it it stays. Its artifact stays anyway."""

    immutable = tuple(name for name in __annotations__ if name not in (*MUTABLE_FIELDS, "serving"))
    immutable_message = _ONLY
    rules = (
        Rule("has(self.serving) == has(oldSelf.serving)", f"serving: {_ONLY}"),
        *(_learns_from(method, formats) for method, formats in METHOD_FORMATS.items()),
        *(_fits_template(adapter) for adapter in ("lora", "qlora", "rslora")),
        Rule(
            "has(self.method.sft) || !has(self.hyperparameters) || (!has(self.hyperparameters.neftuneNoiseAlpha)"
            " && self.hyperparameters.labelSmoothing == 0.0)",
            "hyperparameters.neftuneNoiseAlpha and labelSmoothing are for method.sft",
            lambda spec: (
                spec.method.sft is not None
                or (spec.hyperparameters.neftune_noise_alpha is None and spec.hyperparameters.label_smoothing == 0.0)
            ),
        ),
        Rule(
            "!has(self.method.grpo) || !has(self.hyperparameters) || !has(self.hyperparameters.earlyStopping)",
            "hyperparameters.earlyStopping watches a loss, which says nothing for method.grpo: leave it out",
            lambda spec: spec.method.grpo is None or spec.hyperparameters.early_stopping is None,
        ),
        Rule(
            "!(has(self.adapter.dora) || has(self.adapter.qlora)) || !has(self.compute)"
            " || self.compute.parallelism == 'DDP'",
            "adapter.dora and adapter.qlora cannot be put together from shards: use compute.parallelism DDP",
            lambda spec: not (spec.adapter.dora or spec.adapter.qlora) or spec.compute.parallelism == "DDP",
        ),
        Rule(
            "!has(self.method.reward) || !has(self.serving)",
            "method.reward makes a model that scores and does not answer: leave serving out",
            lambda spec: spec.method.reward is None or spec.serving is None,
        ),
        Rule(
            "!has(self.method.reward) || !has(self.adapter.qlora)",
            "method.reward makes a whole model, into which adapter.qlora cannot be merged: use adapter.lora",
            lambda spec: spec.method.reward is None or spec.adapter.qlora is None,
        ),
        Rule(
            "!(has(self.adapter.dora) || has(self.adapter.full)) || !has(self.serving) || !has(self.serving.server)",
            "adapter.dora and adapter.full make a whole model, which needs a server of its own: use serving.template",
            lambda spec: not spec.adapter.is_merged or spec.serving is None or spec.serving.server is None,
        ),
        Rule(
            "!(has(self.adapter.dora) || has(self.adapter.full) || has(self.method.reward)) || !has(self.output)"
            " || !self.output.merged",
            "output.merged is for adapters: adapter.dora, adapter.full and method.reward make a whole model already",
            lambda spec: not (spec.produces_model and spec.output and spec.output.merged),
        ),
    )

    @property
    def produces_model(self) -> bool:
        """Whether the result is a whole model: merged, trained as such, or a reward model, which has a layer more."""
        return self.adapter.is_merged or self.method.reward is not None

    @property
    def graders(self) -> list[Grader]:
        """The graders of the evaluation: its own, or those that gave the rewards."""
        return self.evaluation.graders or (self.method.grpo.graders if self.method.grpo else [])

    def dump_without_scheduling(self) -> dict[str, Any]:
        """Return what is to be done, as JSON types: the spec without what says only when, which may be changed."""
        without: dict[str, Any] = dict.fromkeys(_ABOUT_TIME, True) | {"serving": {"rollout"}}
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=without)


class FineTuneJob(ApiModel):
    """Fine-tunes a language model, proves the result on held-out data, and serves it under a stable name."""

    spec: FineTuneJobSpec
    """What to train, prove and serve."""
    status: FineTuneJobStatus = FineTuneJobStatus()
    """What happened so far; written by the operator alone."""

    rules = (NAME_RULE,)
