"""The summaries of the stages in the status of a FineTuneJob. The stages report them as the same models."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.artifact import Artifact, Digest
from finetune_api.conditions import Reason
from finetune_api.evaluation import Metric, RelativeTo
from finetune_api.model import ApiModel

Text = Annotated[str, Field(max_length=1024)]


class SourceSummary(ApiModel):
    """Summary of one source of `dataset.mix`."""

    format: Annotated[str, Field(max_length=32)]
    """Format of its rows, given or detected."""
    examples: Annotated[int, Field(ge=0)]
    """Number of its examples, each counted once."""
    train_examples: Annotated[int, Field(ge=0)]
    """Number of examples that an epoch trains on from this source; one with a weight of 2 is counted twice."""
    heldout_examples: Annotated[int, Field(ge=0)]
    """Number of its examples that are held out."""


class DatasetSummary(ApiModel):
    """Summary of the data that the stage Prepare has checked and split."""

    format: Annotated[str, Field(max_length=32)] | None = None
    """Format of the rows, given or detected. Not set if the sources of a mix differ."""
    sources: Annotated[list[SourceSummary], Field(max_length=16)] | None = None
    """The sources of `dataset.mix`, in its order."""
    train_examples: Annotated[int, Field(ge=0)]
    """Number of examples that an epoch trains on. With a weight of 2 in `dataset.mix` an example is counted twice."""
    heldout_examples: Annotated[int, Field(ge=0)]
    """Number of examples held out for the evaluation."""
    train_tokens: Annotated[int, Field(ge=0)]
    """Number of tokens of the training examples, with the model's own tokenizer and chat template."""
    longest_example_tokens: Annotated[int, Field(ge=0)]
    """Length of the longest example in tokens."""
    truncated_examples: Annotated[int, Field(ge=0)] = 0
    """Number of examples longer than `hyperparameters.maxLength`, which are truncated at the end."""
    learned_answers: Annotated[int, Field(ge=0)] | None = None
    """Number of the assistant's answers in the training examples that are learned."""
    unlearned_answers: Annotated[int, Field(ge=0)] | None = None
    """Number of those that cannot be learned because the model's chat template cannot render them."""
    chat_template: Digest | None = None
    """SHA-256 digest of `model.chatTemplate`, with which the examples were rendered. All stages of the job use this
    content, even if the ConfigMap changes."""
    thinking_off: bool = False
    """Whether all answers are trained with thinking switched off. The server then switches it off too, unless a request
    says otherwise."""
    duplicates: Annotated[int, Field(ge=0)] = 0
    """Number of duplicate examples, not counting the first of each."""
    warnings: Annotated[dict[str, int], Field(max_length=32)] | None = None
    """Number of rows for each kind of warning. Warnings do not stop the job; `report/prepare.json` lists the rows."""
    steps: Annotated[int, Field(ge=0)]
    """Estimated number of optimizer steps of the training."""
    digest: Digest
    """SHA-256 digest of the prepared files."""

    def describe(self) -> str:
        """Return the counts in one line, for a condition's message."""
        warnings = ", ".join(f"{count} {kind}" for kind, count in (self.warnings or {}).items())
        parts = " + ".join(str(source.train_examples) for source in self.sources or ())
        return (
            f"{self.train_examples} to train on"
            + (f" ({parts} by source)" if parts else "")
            + f", {self.heldout_examples} held out"
            + (f"; warnings: {warnings}" if warnings else "")
        )


class ChosenHyperparameters(ApiModel):
    """Hyperparameters that the training uses, whether set in the spec or chosen after the data check."""

    epochs: float
    """Number of passes over the training data."""
    learning_rate: float
    """Peak learning rate of AdamW."""
    batch_size: Annotated[int, Field(ge=1)]
    """Number of sequences in one optimizer step, over all devices."""
    micro_batch_size: Annotated[int, Field(ge=1)]
    """Number of sequences on a device at a time."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)]
    """Number of micro-batches of a device in one optimizer step."""
    packing: bool = False
    """Whether several short examples share a sequence."""
    target_modules: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=64)] | None = None
    """Last parts of the names of the linear layers that get an adapter. Left out if the model itself is trained."""


class TrainingSummary(ApiModel):
    """Summary of a completed training."""

    steps: Annotated[int, Field(ge=1)]
    """Number of optimizer steps, over all attempts."""
    resumed_from_step: Annotated[int, Field(ge=0)] = 0
    """Step of the checkpoint from which the last attempt resumed; 0 if it started from the beginning."""
    loss: float
    """Mean training loss of the last logged step, in nats per token."""
    seconds: Annotated[float, Field(ge=0)]
    """Duration of the last attempt's training in seconds."""
    startup_seconds: Annotated[float, Field(ge=0)] | None = None
    """Seconds from the start of the last attempt's process to the end of its first step."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Number of sequences on a device at a time. Lower than the chosen value if it was halved when GPU memory ran
    out."""
    stopped_early: bool = False
    """Whether `hyperparameters.earlyStopping` stopped the training before its last step."""


Verdict = Literal["Improved", "Regressed", "Inconclusive"]
"""Position of the gain's interval: entirely above 0, entirely below 0, or neither."""


class IncumbentComparison(ApiModel):
    """One metric of incumbent and tuned model, with `gain` as for the base model.

    Both are compared on the held-out examples that the incumbent was not trained on.
    """

    examples: Annotated[int, Field(ge=0)] | None = None
    """Number of these examples to which the metric applies. If there is none, the values are those of all held-out
    examples, and prove nothing."""
    value: float
    """Value of the metric for the incumbent."""
    tuned: float | None = None
    """Value of the metric for the tuned model on the same examples."""
    gain: float
    """Gain of the tuned model over the incumbent; positive is better."""
    gain_low: float
    """Lower bound of the gain's 95 % confidence interval (paired bootstrap)."""
    gain_high: float
    """Upper bound of that interval."""
    verdict: Verdict
    """`Improved` if the whole interval is above 0, `Regressed` if it is below 0, otherwise `Inconclusive`."""


class MetricComparison(ApiModel):
    """One metric of base and tuned model on the same held-out examples.

    `gain` is positive if the tuned model is better: for Perplexity it is the fraction by which it fell
    (1 - tuned/base), for other metrics the difference tuned - base.
    """

    metric: Metric
    """Name of the metric."""
    grader: Annotated[str, Field(max_length=32)] | None = None
    """Name of the grader, for the metric Grader."""
    examples: Annotated[int, Field(ge=0)] | None = None
    """Number of held-out examples to which the metric applies."""
    base: float
    """Value of the metric for the base model."""
    tuned: float
    """Value of the metric for the tuned model."""
    gain: float
    """Gain of the tuned model over the base model; positive is better."""
    gain_low: float
    """Lower bound of the gain's 95 % confidence interval (paired bootstrap)."""
    gain_high: float
    """Upper bound of that interval."""
    verdict: Verdict
    """`Improved` if the whole interval is above 0, `Regressed` if it is below 0, otherwise `Inconclusive`."""
    incumbent: IncumbentComparison | None = None
    """Comparison with the incumbent, if there is one."""

    @property
    def label(self) -> str:
        """Return the metric's name, followed by the grader's name for the metric Grader."""
        return f"{self.metric} {self.grader}" if self.grader else self.metric


class GateResult(ApiModel):
    """Result of one gate."""

    metric: Metric
    """Metric of the gate."""
    grader: Annotated[str, Field(max_length=32)] | None = None
    """Name of the grader, for the metric Grader."""
    relative_to: RelativeTo = "Base"
    """What the tuned model was compared with. `Base` if there was no incumbent."""
    passed: bool
    """Whether the gate passed: the lower bound of the gain's interval meets the requirement."""
    conclusive: bool = True
    """Whether the held-out examples decide the gate. They do not if there are fewer than `minExamples`, or if the
    interval contains the requirement."""
    message: Text
    """Explanation of the result, with the values."""


class EvaluationSummary(ApiModel):
    """Comparison of base, incumbent and tuned model on held-out data."""

    examples: Annotated[int, Field(ge=0)]
    """Number of held-out examples that were evaluated."""
    passed: bool
    """Whether every gate passed."""
    metrics: Annotated[list[MetricComparison], Field(max_length=8)]
    """The first metrics, those with a gate before the others. `report/evaluate.json` has all metrics."""
    gates: Annotated[list[GateResult], Field(max_length=8)]
    """Result of every gate."""

    @property
    def reason(self) -> Reason:
        """The reason of the condition `Evaluated`."""
        missed = [gate for gate in self.gates if not gate.passed]
        if self.passed:
            return Reason.GATES_PASSED
        return Reason.GATES_FAILED if any(gate.conclusive for gate in missed) or not missed else Reason.INCONCLUSIVE


class ExportSummary(ApiModel):
    """Summary of the export of a result that has passed its gates."""

    merged: Artifact | None = None
    """The base model with the adapter merged into its weights."""
    bucket: Annotated[str, Field(max_length=512)] | None = None
    """URI of the job's directory in the bucket."""
    hub: Annotated[str, Field(max_length=512)] | None = None
    """URI of the repository on the Hugging Face Hub."""
    commit: Annotated[str, Field(max_length=64)] | None = None
    """Commit of the job in that repository."""

    def describe(self) -> str:
        """Return the locations in one line, for a condition's message."""
        parts = (
            f"merged into {self.merged.uri}" if self.merged else "",
            f"copied to {self.bucket}" if self.bucket else "",
            f"pushed to {self.hub}, commit {(self.commit or '')[:12]}" if self.hub else "",
        )
        return ", ".join(filter(None, parts))
