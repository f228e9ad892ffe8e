"""The conditions of both kinds and every reason that they can carry."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Time


class ConditionType(StrEnum):
    """The conditions. `Ready` sums the others up; `Failed` is terminal."""

    ACCEPTED = "Accepted"
    DATASET_READY = "DatasetReady"
    APPROVED = "Approved"
    TRAINED = "Trained"
    EVALUATED = "Evaluated"
    EXPORTED = "Exported"
    SERVED = "Served"
    SUSPENDED = "Suspended"
    READY = "Ready"
    FAILED = "Failed"


class Reason(StrEnum):
    """Why a condition is as it is. One word for each thing that a user would do differently."""

    # the way
    ACCEPTED = "Accepted"
    PREPARING = "Preparing"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    EXPORTING = "Exporting"
    DEPLOYING = "Deploying"
    ROLLING_OUT = "RollingOut"
    SUCCEEDED = "Succeeded"
    GATES_PASSED = "GatesPassed"
    ADAPTER_LOADED = "AdapterLoaded"
    SERVING = "Serving"
    COMPLETED = "Completed"
    WAITING = "Waiting"
    WITHIN_BUDGET = "WithinBudget"
    APPROVED_BY_HAND = "ApprovedByHand"
    QUEUED = "Queued"
    STOPPING = "Stopping"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    # what a user can put right
    INVALID_SPEC = "InvalidSpec"
    CONFLICT = "Conflict"
    DATASET_INVALID = "DatasetInvalid"
    DATASET_NOT_FOUND = "DatasetNotFound"
    PREPARED_DATA_GONE = "PreparedDataGone"
    OUTPUT_NOT_FOUND = "OutputNotFound"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_UNSUPPORTED = "ModelUnsupported"
    MODEL_UNSAFE = "ModelUnsafe"
    MODEL_DAMAGED = "ModelDamaged"
    TEMPLATE_INVALID = "TemplateInvalid"
    ACCESS_DENIED = "AccessDenied"
    TERMS_NOT_ACCEPTED = "TermsNotAccepted"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105
    VOLUME_ACCESS_DENIED = "VolumeAccessDenied"
    NOT_SERVABLE = "NotServable"
    GPU_TOO_SMALL = "GpuTooSmall"
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    BUDGET_EXCEEDED = "BudgetExceeded"
    LIMIT_REACHED = "LimitReached"
    LIMIT_EXCEEDED = "LimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    GATES_FAILED = "GatesFailed"
    SERVER_NOT_FOUND = "ServerNotFound"
    SERVER_FULL = "ServerFull"
    SERVER_MISMATCH = "ServerMismatch"
    SUPERSEDED = "Superseded"
    ROLLOUT_ABORTED = "RolloutAborted"
    ADAPTER_REFUSED = "AdapterRefused"
    # what the cluster did
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    LOSS_NOT_FINITE = "LossNotFinite"
    STORAGE_FULL = "StorageFull"
    CHECKPOINT_DAMAGED = "CheckpointDamaged"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    RATE_LIMITED = "RateLimited"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    POD_NOT_CREATED = "PodNotCreated"
    CREATE_REFUSED = "CreateRefused"
    RETRYING = "Retrying"
    PREPARE_FAILED = "PrepareFailed"
    TRAINING_FAILED = "TrainingFailed"
    EVALUATION_FAILED = "EvaluationFailed"
    EXPORT_FAILED = "ExportFailed"
    SERVER_NOT_READY = "ServerNotReady"


NORMAL_REASONS = frozenset(
    {
        Reason.ACCEPTED,
        Reason.PREPARING,
        Reason.TRAINING,
        Reason.EVALUATING,
        Reason.EXPORTING,
        Reason.DEPLOYING,
        Reason.ROLLING_OUT,
        Reason.SUCCEEDED,
        Reason.GATES_PASSED,
        Reason.ADAPTER_LOADED,
        Reason.SERVING,
        Reason.COMPLETED,
        Reason.WAITING,
        Reason.WAITING_FOR_APPROVAL,
        Reason.WITHIN_BUDGET,
        Reason.APPROVED_BY_HAND,
        Reason.QUEUED,
        Reason.STOPPING,
        Reason.SUSPENDED,
        Reason.RESUMED,
    }
)
"""Those that call for nobody: the job is on its way, or waits as it was told to."""


class Condition(ApiModel):
    """A condition as the Kubernetes API conventions describe it."""

    type: Annotated[str, Field(max_length=64)]
    """Name of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int = 0
    """Generation of the spec that this was said about."""
    last_transition_time: Time
    """When the status changed last."""
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """One word that programs can act on."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """One sentence for people: what is so, and what to do."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
"""A list-map by type, as the Kubernetes API conventions ask for."""
