"""The stages of a FineTuneJob and the values of `status.stage`."""

from enum import StrEnum


class Stage(StrEnum):
    """The stages that run as Kubernetes Jobs, in order."""

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
