"""The status of a FineTuneJob: what happened so far, written by the operator alone."""

from typing import Annotated, Self

from pydantic import Field

from finetune_api.access import KeyName
from finetune_api.artifact import Artifact, Incumbent
from finetune_api.conditions import Conditions
from finetune_api.estimate import Estimate
from finetune_api.model import ApiModel, Time
from finetune_api.references import ObjectName, SecretRef
from finetune_api.stage import Stage
from finetune_api.summaries import (
    ChosenHyperparameters,
    DatasetSummary,
    EvaluationSummary,
    ExportSummary,
    TrainingSummary,
)
from finetune_api.warm_start import WarmStart


class TrainingProgress(ApiModel):
    """How far the training is."""

    percentage: Annotated[int, Field(ge=0, le=100)]
    """Steps done, of 100."""
    step: Annotated[int, Field(ge=0)]
    """Optimizer steps done."""
    steps: Annotated[int, Field(ge=0)]
    """Optimizer steps in all."""
    remaining_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds left at the present pace."""
    loss: float | None = None
    """Training loss of the last logged step, in nats a token."""
    text: Annotated[str, Field(max_length=64)] = ""
    """Percentage and time left, for the table."""
    update_time: Time | None = None
    """When the trainer first said so: old, while a step takes long or the training hangs."""


MAX_ATTEMPTS = 9999
"""At a stage; the number is a part of its Job's name."""
_Attempts = Annotated[int, Field(ge=0, le=MAX_ATTEMPTS)]


class Attempts(ApiModel):
    """How often each stage was begun; an attempt that a disruption ended is counted too."""

    prepare: _Attempts = 0
    train: _Attempts = 0
    evaluate: _Attempts = 0
    export: _Attempts = 0
    disruptions: Annotated[int, Field(ge=0, le=4 * MAX_ATTEMPTS)] = 0
    """Attempts that ended because the pod was disrupted; they use up no retry."""

    def of(self, stage: Stage) -> int:
        """Return how many attempts a stage has had."""
        count: int = getattr(self, stage.lower())
        return count

    def with_count(self, stage: Stage, count: int) -> Self:
        """Return the same with another number of attempts of one stage."""
        return self.model_copy(update={stage.lower(): count})


class ActiveTime(ApiModel):
    """How long the stages were at work, for `activeDeadlineSeconds`."""

    seconds: Annotated[int, Field(ge=0)] = 0
    """Seconds of work until `since`, or in all where that is not there."""
    since: Time | None = None
    """When the stage that is at work now began, or went on."""


class QuotaRequest(ApiModel):
    """The quota of its namespace that a job waits for."""

    jobs: Annotated[int, Field(ge=0)] = 0
    """Active FineTuneJobs."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of all pods."""


class ServingStatus(ApiModel):
    """Where the tuned model answers."""

    model_name: Annotated[str, Field(max_length=63)]
    """The name that clients ask for."""
    server: Annotated[str, Field(max_length=63)]
    """The ModelServer that hosts it."""
    endpoint: Annotated[str, Field(max_length=253)] | None = None
    """Base URL for OpenAI clients inside the cluster."""
    loaded_pods: Annotated[int, Field(ge=0)] = 0
    """Pods that report the adapter as loaded."""


class EvaluationServer(ApiModel):
    """A ModelServer that hosts the result while it is judged, for nobody else."""

    name: ObjectName
    """The ModelServer."""
    secret_ref: SecretRef | None = None
    """Secret with its API keys, where it asks for one."""
    key: KeyName | None = None
    """Which of them the evaluation asks with."""


class FineTuneJobStatus(ApiModel):
    """What happened so far."""

    observed_generation: int = 0
    """Generation of the spec that this status is about."""
    conditions: Conditions = []
    """Accepted, DatasetReady, Approved, Trained, Evaluated, Exported, Served, Suspended, Ready, Failed."""
    stage: Annotated[str, Field(max_length=32)] | None = None
    """Prepare, Approve, Train, Evaluate, Export, Serve, Complete or Failed; for the table only."""
    reason: Annotated[str, Field(max_length=64)] | None = None
    """Reason of Ready, for the table."""
    method: Annotated[str, Field(max_length=32)] | None = None
    """Method and adapter, for the table."""
    start_time: Time | None = None
    """When the first stage began."""
    completion_time: Time | None = None
    """When the job was Ready for the first time, or failed."""
    retired_time: Time | None = None
    """Since when no server holds the result any more, because newer ones took its place."""
    active: ActiveTime | None = None
    """How long the stages were at work, where the job has a deadline."""
    waiting_for: QuotaRequest | None = None
    """What it waits for under the limits of its namespace."""
    attempts: Attempts = Attempts()
    """How often each stage was begun."""
    attempt_time: Time | None = None
    """When the last attempt began; not there once it was stopped."""
    warm_start: WarmStart | None = None
    """What a `finetunejob://` in `model.uri` stood for when the job began."""
    dataset: DatasetSummary | None = None
    """What the data check found."""
    hyperparameters: ChosenHyperparameters | None = None
    """The hyperparameters that the job trains with, given or chosen."""
    estimate: Estimate | None = None
    """What the training will take, before it begins."""
    progress: TrainingProgress | None = None
    """How far the training is."""
    training: TrainingSummary | None = None
    """What the training did."""
    artifact: Artifact | None = None
    """The trained adapter or model."""
    incumbent: Incumbent | None = None
    """What served under the same name when the evaluation began."""
    evaluation_server: EvaluationServer | None = None
    """What evaluates the result beside its own work; without it a pod of its own does."""
    evaluation: EvaluationSummary | None = None
    """Base, incumbent and tuned model compared."""
    export: ExportSummary | None = None
    """Where the proven result was copied to, beside `artifact`."""
    serving: ServingStatus | None = None
    """Where the tuned model answers."""
