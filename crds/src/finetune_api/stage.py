"""The stages of a FineTuneJob, and what its status names as the present one."""

from enum import StrEnum


class Stage(StrEnum):
    """The stages that run as Kubernetes Jobs, in their order."""

    PREPARE = "Prepare"
    TRAIN = "Train"
    EVALUATE = "Evaluate"
    EXPORT = "Export"


class Phase(StrEnum):
    """Values of `status.stage` besides the stages that run as Jobs."""

    APPROVE = "Approve"
    SERVE = "Serve"
    COMPLETE = "Complete"
    FAILED = "Failed"
