"""The condition types of both kinds and all their reasons."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Time


class ConditionType(StrEnum):
    """The condition types. `Ready` summarizes the others; `Failed` is final."""

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
    """The reasons of conditions: one for each case in which a user would act differently."""

    # Progress
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
    # Errors that a user can fix
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
    VOLUME_NOT_FOUND = "VolumeNotFound"
    VOLUME_ACCESS_DENIED = "VolumeAccessDenied"
    NOT_SERVABLE = "NotServable"
    GPU_TOO_SMALL = "GpuTooSmall"
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    BUDGET_EXCEEDED = "BudgetExceeded"
    LIMIT_REACHED = "LimitReached"
    LIMIT_EXCEEDED = "LimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    GATES_FAILED = "GatesFailed"
    INCONCLUSIVE = "Inconclusive"
    SERVER_NOT_FOUND = "ServerNotFound"
    SERVER_FULL = "ServerFull"
    SERVER_MISMATCH = "ServerMismatch"
    SUPERSEDED = "Superseded"
    ROLLOUT_ABORTED = "RolloutAborted"
    ADAPTER_REFUSED = "AdapterRefused"
    # Errors of the cluster or the run
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    LOSS_NOT_FINITE = "LossNotFinite"
    NOTHING_LEARNED = "NothingLearned"
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
"""Reasons that need no action: the job makes progress, or waits as the user asked."""


class Condition(ApiModel):
    """A condition, as in the Kubernetes API conventions."""

    type: Annotated[str, Field(max_length=64)]
    """Type of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Status of the condition: `True`, `False` or `Unknown`."""
    observed_generation: int = 0
    """Generation of the spec that the condition refers to."""
    last_transition_time: Time
    """Time when the status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """Reason for the status, a CamelCase word for programs."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Explanation for people: what the state is and what to do."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
"""Conditions as a list-map by type, as in the Kubernetes API conventions."""
