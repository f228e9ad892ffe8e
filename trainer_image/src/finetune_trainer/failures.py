"""Failures of a stage: a reason for the status, from which the exit code follows, and a message for the user."""

import errno
import os

from finetune_api.conditions import Reason
from finetune_api.contract.reports import StageReport

_VOLUME_FULL_TEXTS = (os.strerror(errno.ENOSPC), "unexpected pos", "iostream error")
"""Texts of errors on a full volume: the first is safetensors', the others are those of torch's file writer."""


class StageError(Exception):
    """A failure whose reason is known."""

    def __init__(self, reason: Reason, message: str) -> None:
        """Store the reason and the message of the report."""
        super().__init__(message)
        self.reason = reason

    def to_report(self) -> StageReport:
        """Return the report of the stage that failed."""
        return StageReport(outcome="Failed", reason=self.reason, message=str(self)[:1024])


def diagnose(error: BaseException, fallback: Reason) -> StageError:
    """Return an exception as a StageError, with the reason that its type, errno or text indicates.

    Exceptions from C++ and Rust libraries have neither a type of their own nor an errno, so their text decides.

    Args:
        error: the exception.
        fallback: the reason of an exception that nothing else identifies.
    """
    if isinstance(error, StageError):
        return error
    text = f"{type(error).__name__}: {error}"
    number = error.errno if isinstance(error, OSError) else None
    if "CUDA out of memory" in text:
        return StageError(
            Reason.GPU_OUT_OF_MEMORY,
            "the GPU ran out of memory: lower hyperparameters.microBatchSize or maxLength, or use a larger GPU",
        )
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return StageError(
            Reason.OUT_OF_MEMORY,
            "out of memory: raise compute.resources.memory, or lower hyperparameters.microBatchSize or maxLength",
        )
    if number in (errno.ENOSPC, errno.EDQUOT) or any(known in text for known in _VOLUME_FULL_TEXTS):
        return StageError(
            Reason.STORAGE_FULL, f"the output volume is full: enlarge it, or delete files from it ({error})"
        )
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return StageError(Reason.VOLUME_ACCESS_DENIED, f"{error}: grant the group of the pods access to the volume")
    return StageError(fallback, text)
