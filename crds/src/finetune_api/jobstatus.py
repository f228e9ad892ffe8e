"""The status of a FineTuneJob, which only the operator writes."""

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
    """TrainingProgress of the running training."""

    percentage: Annotated[int, Field(ge=0, le=100)]
    """Percentage of the optimizer steps that are done."""
    step: Annotated[int, Field(ge=0)]
    """Number of optimizer steps that are done."""
    steps: Annotated[int, Field(ge=0)]
    """Total number of optimizer steps."""
    remaining_seconds: Annotated[int, Field(ge=0)] | None = None
    """Estimated remaining time in seconds, at the current speed."""
    loss: float | None = None
    """Training loss of the last logged step, in nats per token."""
    text: Annotated[str, Field(max_length=64)] = ""
    """Percentage and remaining time, for the column of `kubectl get`."""
    update_time: Time | None = None
    """Time when the trainer first reported these values. An old time means a slow step or a training that hangs."""


MAX_ATTEMPTS = 9999
"""Maximum number of attempts of a stage. The number is part of the Job's name."""
_Attempts = Annotated[int, Field(ge=0, le=MAX_ATTEMPTS)]


class Attempts(ApiModel):
    """Number of attempts of each stage, including those that a disruption ended."""

    prepare: _Attempts = 0
    train: _Attempts = 0
    evaluate: _Attempts = 0
    export: _Attempts = 0
    disruptions: Annotated[int, Field(ge=0, le=4 * MAX_ATTEMPTS)] = 0
    """Number of attempts that a disruption of the pod ended. They use no retry."""

    def of(self, stage: Stage) -> int:
        """Return the number of attempts of a stage."""
        count: int = getattr(self, stage.lower())
        return count

    def with_count(self, stage: Stage, count: int) -> Self:
        """Return a copy with another number of attempts of one stage."""
        return self.model_copy(update={stage.lower(): count})


class ActiveTime(ApiModel):
    """Run time of the stages, which `activeDeadlineSeconds` limits."""

    seconds: Annotated[int, Field(ge=0)] = 0
    """Run time in seconds before `since`; the total if `since` is not set."""
    since: Time | None = None
    """Time when the running stage started or resumed."""


class QuotaRequest(ApiModel):
    """The quota of its namespace that a job waits for."""

    jobs: Annotated[int, Field(ge=0)] = 0
    """Active FineTuneJobs."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of all pods."""


class ServingStatus(ApiModel):
    """Where the tuned model is served."""

    model_name: Annotated[str, Field(max_length=63)]
    """Model name that clients send."""
    server: Annotated[str, Field(max_length=63)]
    """Name of the ModelServer that serves it."""
    endpoint: Annotated[str, Field(max_length=253)] | None = None
    """Base URL for OpenAI clients in the cluster."""
    loaded_pods: Annotated[int, Field(ge=0)] = 0
    """Number of pods that report the result as loaded."""


class EvaluationServer(ApiModel):
    """The ModelServer on which the result is evaluated, hidden from other clients."""

    name: ObjectName
    """Name of the ModelServer."""
    secret_ref: SecretRef | None = None
    """Secret with the server's API keys, if the server requires one."""
    key: KeyName | None = None
    """Key of that Secret that the evaluation uses."""


class FineTuneJobStatus(ApiModel):
    """Observed state of a FineTuneJob."""

    observed_generation: int = 0
    """Generation of the spec that the operator last observed."""
    conditions: Conditions = []
    """Conditions: `Accepted`, `DatasetReady`, `Approved`, `Trained`, `Evaluated`, `Exported`, `Served`, `Suspended`,
    `Ready` and `Failed`. `Ready` summarizes the others, `Failed` is final."""
    stage: Annotated[str, Field(max_length=32)] | None = None
    """Current stage, for the column of `kubectl get`: Prepare, Approve, Train, Evaluate, Export, Serve, Complete or
    Failed. Programs should read the conditions."""
    reason: Annotated[str, Field(max_length=64)] | None = None
    """Reason of the condition `Ready`, for the column of `kubectl get`."""
    method: Annotated[str, Field(max_length=32)] | None = None
    """Method and adapter, for the column of `kubectl get`."""
    start_time: Time | None = None
    """Time when the first stage started."""
    completion_time: Time | None = None
    """Time when the job first became Ready, or failed."""
    retired_time: Time | None = None
    """Time since which no server holds the result any more, because newer versions replaced it."""
    active: ActiveTime | None = None
    """Run time of the stages, if the job has an `activeDeadlineSeconds`."""
    waiting_for: QuotaRequest | None = None
    """What the job needs from the quota of its namespace before it can start."""
    attempts: Attempts = Attempts()
    """Number of attempts of each stage."""
    attempt_time: Time | None = None
    """Time when the last attempt started. Removed when that attempt was stopped."""
    warm_start: WarmStart | None = None
    """What a `finetunejob://` in `model.uri` referred to when the job started."""
    dataset: DatasetSummary | None = None
    """Summary of the prepared data."""
    hyperparameters: ChosenHyperparameters | None = None
    """Hyperparameters that the training uses, whether set in the spec or chosen after the data check."""
    estimate: Estimate | None = None
    """Estimated steps, memory, time and cost of the training."""
    progress: TrainingProgress | None = None
    """TrainingProgress of the running training."""
    training: TrainingSummary | None = None
    """Summary of the completed training."""
    artifact: Artifact | None = None
    """The trained adapter or model."""
    incumbent: Incumbent | None = None
    """The version that served under the same name when the evaluation started."""
    evaluation_server: EvaluationServer | None = None
    """The shared ModelServer on which the result is evaluated. Not set if the evaluation runs in a pod of its own."""
    evaluation: EvaluationSummary | None = None
    """Summary of the evaluation: base, incumbent and tuned model compared."""
    export: ExportSummary | None = None
    """Where the result was exported to, besides `artifact`."""
    serving: ServingStatus | None = None
    """Where the tuned model is served."""
