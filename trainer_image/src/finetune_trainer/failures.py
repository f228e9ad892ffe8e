"""How a stage fails: a reason for the status, an exit code for the Job, a sentence for people."""

import errno

from finetune_api.conditions import Reason
from finetune_api.reports import ExitCode


class StageError(Exception):
    """A failure whose reason is known."""

    def __init__(self, code: ExitCode, reason: Reason, message: str) -> None:
        """Keep what the report will say."""
        super().__init__(message)
        self.code = code
        self.reason = reason


def diagnose(error: BaseException, fallback: Reason) -> StageError:
    """Return the failure that an exception means."""
    if isinstance(error, StageError):
        return error
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return StageError(
            ExitCode.OUT_OF_MEMORY,
            Reason.OUT_OF_MEMORY,
            "out of memory: raise compute.resources, or lower hyperparameters.microBatchSize or maxLength",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StageError(ExitCode.STORAGE_FULL, Reason.STORAGE_FULL, f"the volume of the output is full: {error}")
    if isinstance(error, PermissionError):
        return StageError(ExitCode.ACCESS_DENIED, Reason.ACCESS_DENIED, str(error))
    return StageError(ExitCode.SOFTWARE, fallback, f"{type(error).__name__}: {error}")
