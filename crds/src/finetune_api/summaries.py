"""What the stages of a FineTuneJob found, as the status shows it. A stage's report carries the same models."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.artifact import Artifact, Digest
from finetune_api.evaluation import Metric, RelativeTo
from finetune_api.model import ApiModel

Text = Annotated[str, Field(max_length=1024)]


class DatasetSummary(ApiModel):
    """What `prepare` found in the data."""

    format: Annotated[str, Field(max_length=32)] | None = None
    """What the rows were taken for."""
    train_examples: Annotated[int, Field(ge=0)]
    """Conversations to train on."""
    heldout_examples: Annotated[int, Field(ge=0)]
    """Conversations kept for the evaluation, never trained on."""
    train_tokens: Annotated[int, Field(ge=0)]
    """Tokens of the training part, counted with the model's own tokenizer and chat template."""
    longest_example_tokens: Annotated[int, Field(ge=0)]
    """Tokens of the longest conversation."""
    truncated_examples: Annotated[int, Field(ge=0)] = 0
    """Conversations longer than `hyperparameters.maxLength`; their tail is not trained on."""
    duplicates: Annotated[int, Field(ge=0)] = 0
    """Conversations that stand in the data more than once, beyond the first of each."""
    warnings: Annotated[dict[str, int], Field(max_length=32)] | None = None
    """How many rows each kind of warning is about; they stop nothing. `report/prepare.json` names the rows."""
    steps: Annotated[int, Field(ge=0)]
    """Optimizer steps that the training will take, estimated."""
    digest: Digest
    """SHA-256 over the prepared files."""

    def describe(self) -> str:
        """Return the figures in a sentence."""
        warned = ", ".join(f"{count} {kind}" for kind, count in (self.warnings or {}).items())
        return f"{self.train_examples} to train on, {self.heldout_examples} held out" + (
            f"; warnings: {warned}" if warned else ""
        )


class ChosenHyperparameters(ApiModel):
    """What the job left to be chosen, and what follows from it."""

    epochs: float
    """Passes over the data."""
    learning_rate: float
    """Peak learning rate."""
    batch_size: Annotated[int, Field(ge=1)]
    """Sequences in one optimizer step, over all devices."""
    micro_batch_size: Annotated[int, Field(ge=1)]
    """Sequences on a device at a time."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)]
    """Micro-batches of a device in one optimizer step."""


class TrainingSummary(ApiModel):
    """What `train` did."""

    steps: Annotated[int, Field(ge=1)]
    """Optimizer steps done, over all attempts."""
    resumed_from_step: Annotated[int, Field(ge=0)] = 0
    """Step of the checkpoint that the last attempt went on from; 0 is from the beginning."""
    loss: float
    """Mean training loss of the last logged step, in nats a token."""
    seconds: Annotated[float, Field(ge=0)]
    """Seconds that the last attempt trained."""
    startup_seconds: Annotated[float, Field(ge=0)] | None = None
    """Seconds of the last attempt from the start of its process to the end of its first step."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Sequences on a device at a time; below the chosen one where GPU memory ran out on the way."""
    stopped_early: bool = False
    """Whether `hyperparameters.earlyStopping` ended the training before its last step."""


Verdict = Literal["Improved", "Regressed", "Inconclusive"]
"""What an interval of the gain says: all of it above 0, all of it below, or neither."""


class IncumbentComparison(ApiModel):
    """One metric of incumbent and tuned model on the same held-out examples; `gain` as for the base model."""

    value: float
    """Value of the incumbent."""
    gain: float
    """By how much the tuned model is better than the incumbent."""
    gain_low: float
    """Lower end of the 95 % paired bootstrap interval of the gain."""
    gain_high: float
    """Upper end of the interval."""
    verdict: Verdict
    """Improved, Regressed or Inconclusive, by the interval."""


class MetricComparison(ApiModel):
    """One metric of base and tuned model on the same held-out examples.

    `gain` is positive when the tuned model is better: for Perplexity the fraction by which it fell
    (1 - tuned/base), for the others the difference tuned - base.
    """

    metric: Metric
    """Name of the metric."""
    grader: Annotated[str, Field(max_length=32)] | None = None
    """For the metric Grader, which one."""
    base: float
    """Value of the base model."""
    tuned: float
    """Value of the tuned model."""
    gain: float
    """By how much the tuned model is better."""
    gain_low: float
    """Lower end of the 95 % paired bootstrap interval of the gain."""
    gain_high: float
    """Upper end of the interval."""
    verdict: Verdict
    """Improved, Regressed or Inconclusive, by the interval."""
    incumbent: IncumbentComparison | None = None
    """The incumbent and the tuned model compared, where there is one."""

    @property
    def label(self) -> str:
        """The metric, and the grader where it is one."""
        return f"{self.metric} {self.grader}" if self.grader else self.metric


class GateResult(ApiModel):
    """One gate, decided."""

    metric: Metric
    """Metric that the gate is about."""
    grader: Annotated[str, Field(max_length=32)] | None = None
    """For the metric Grader, which one."""
    relative_to: RelativeTo = "Base"
    """What the tuned model was compared with: Base too where there is no incumbent."""
    passed: bool
    """Whether the lower end of the gain's interval reaches the least that the gate asks for."""
    message: Text
    """The decision with its figures."""


class EvaluationSummary(ApiModel):
    """Base, incumbent and tuned model compared on held-out data."""

    examples: Annotated[int, Field(ge=0)]
    """Held-out examples used."""
    passed: bool
    """Whether every gate passed."""
    metrics: Annotated[list[MetricComparison], Field(max_length=8)]
    """The metrics: those with a gate first; `report/evaluate.json` has those for which there is no room here."""
    gates: Annotated[list[GateResult], Field(max_length=8)]
    """Every gate decided."""


class ExportSummary(ApiModel):
    """What `export` made of the proven result."""

    merged: Artifact | None = None
    """The base model with the adapter in its weights."""
    bucket: Annotated[str, Field(max_length=512)] | None = None
    """The job's directory in the bucket."""
    hub: Annotated[str, Field(max_length=512)] | None = None
    """The repository on the hub."""
    commit: Annotated[str, Field(max_length=64)] | None = None
    """The job's commit there."""

    def describe(self) -> str:
        """Return where things are, in a sentence."""
        parts = (
            f"merged into {self.merged.uri}" if self.merged else "",
            f"copied to {self.bucket}" if self.bucket else "",
            f"pushed to {self.hub}, commit {(self.commit or '')[:12]}" if self.hub else "",
        )
        return ", ".join(filter(None, parts))
