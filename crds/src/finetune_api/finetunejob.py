"""FineTuneJob: base model, data, method, hardware, how good is good enough, and the name to serve under."""

from typing import Annotated

from pydantic import Field

from finetune_api.compute import Compute
from finetune_api.data import SFT_FORMATS, Dataset, Output
from finetune_api.evaluation import Evaluation
from finetune_api.jobstatus import FineTuneJobStatus
from finetune_api.model import ApiModel, Rule
from finetune_api.modelserver import NAME_RULE, Model, ObjectName, ServerTemplate
from finetune_api.routes import BASE_NAME
from finetune_api.training import Adapter, Hyperparameters, Method


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
