"""How the program of a stage ends when it fails: the exit code for each reason, and whether a retry can help."""

from enum import IntEnum
from typing import NamedTuple

from finetune_api.conditions import Reason


class ExitCode(IntEnum):
    """Exit codes of a stage, with the values of sysexits.h where it has one."""

    OK = 0
    BAD_DATA = 65
    NOT_FOUND = 66
    SOFTWARE = 70
    OUT_OF_MEMORY = 71
    STORAGE_FULL = 74
    TRANSIENT = 75
    ACCESS_DENIED = 77
    BAD_CONFIG = 78
    STOPPED = 143
    """SIGTERM: the pod was asked to stop, and its newest checkpoint is complete. The operator counts a disruption."""


class Failure(NamedTuple):
    """What follows from a reason for which a stage fails."""

    exit_code: ExitCode
    is_terminal: bool
    """Whether the next attempt would fail in the same way: the operator does not retry then."""


FAILURES = {
    Reason.DATASET_INVALID: Failure(ExitCode.BAD_DATA, is_terminal=True),
    Reason.DATASET_NOT_FOUND: Failure(ExitCode.NOT_FOUND, is_terminal=True),
    Reason.PREPARED_DATA_GONE: Failure(ExitCode.NOT_FOUND, is_terminal=True),
    Reason.MODEL_NOT_FOUND: Failure(ExitCode.NOT_FOUND, is_terminal=True),
    Reason.OUTPUT_NOT_FOUND: Failure(ExitCode.NOT_FOUND, is_terminal=True),
    Reason.INVALID_SPEC: Failure(ExitCode.BAD_CONFIG, is_terminal=True),
    Reason.MODEL_UNSUPPORTED: Failure(ExitCode.BAD_CONFIG, is_terminal=True),
    Reason.MODEL_UNSAFE: Failure(ExitCode.BAD_CONFIG, is_terminal=True),
    Reason.MODEL_DAMAGED: Failure(ExitCode.BAD_CONFIG, is_terminal=True),
    Reason.TEMPLATE_INVALID: Failure(ExitCode.BAD_CONFIG, is_terminal=True),
    Reason.NOT_SERVABLE: Failure(ExitCode.BAD_CONFIG, is_terminal=True),
    Reason.GPU_TOO_SMALL: Failure(ExitCode.BAD_CONFIG, is_terminal=True),
    Reason.ADAPTER_REFUSED: Failure(ExitCode.BAD_CONFIG, is_terminal=True),
    Reason.ACCESS_DENIED: Failure(ExitCode.ACCESS_DENIED, is_terminal=True),
    Reason.TERMS_NOT_ACCEPTED: Failure(ExitCode.ACCESS_DENIED, is_terminal=True),
    Reason.VOLUME_ACCESS_DENIED: Failure(ExitCode.ACCESS_DENIED, is_terminal=True),
    Reason.OUT_OF_MEMORY: Failure(ExitCode.OUT_OF_MEMORY, is_terminal=True),
    Reason.GPU_OUT_OF_MEMORY: Failure(ExitCode.OUT_OF_MEMORY, is_terminal=True),
    Reason.LOSS_NOT_FINITE: Failure(ExitCode.SOFTWARE, is_terminal=True),
    Reason.NOTHING_LEARNED: Failure(ExitCode.SOFTWARE, is_terminal=True),
    Reason.CHECKPOINT_DAMAGED: Failure(ExitCode.SOFTWARE, is_terminal=False),
    Reason.PREPARE_FAILED: Failure(ExitCode.SOFTWARE, is_terminal=False),
    Reason.TRAINING_FAILED: Failure(ExitCode.SOFTWARE, is_terminal=False),
    Reason.EVALUATION_FAILED: Failure(ExitCode.SOFTWARE, is_terminal=False),
    Reason.EXPORT_FAILED: Failure(ExitCode.SOFTWARE, is_terminal=False),
    Reason.STORAGE_FULL: Failure(ExitCode.STORAGE_FULL, is_terminal=False),
    Reason.SOURCE_UNREACHABLE: Failure(ExitCode.TRANSIENT, is_terminal=False),
    Reason.RATE_LIMITED: Failure(ExitCode.TRANSIENT, is_terminal=False),
    Reason.RETRYING: Failure(ExitCode.STOPPED, is_terminal=False),
}
"""Every reason for which a stage fails."""

_UNKNOWN = Failure(ExitCode.SOFTWARE, is_terminal=False)


def find_failure(reason: Reason) -> Failure:
    """Return what follows from a reason; one that no stage reports counts as a software error, which is retried."""
    return FAILURES.get(reason, _UNKNOWN)
