"""How a stage fails: a reason for the status, an exit code for the Job, a sentence for people."""

import errno
import os

from finetune_api.conditions import Reason
from finetune_api.contract.reports import ExitCode
from finetune_pod.modelfiles import ModelFilesError, UnsafeModelError

_FULL = (os.strerror(errno.ENOSPC), "unexpected pos", "iostream error")
"""What a volume that is full is called: by safetensors, and by torch, whose writer finds less than it wrote."""


class StageError(Exception):
    """A failure whose reason is known."""

    def __init__(self, code: ExitCode, reason: Reason, message: str) -> None:
        """Keep what the report will say."""
        super().__init__(message)
        self.code = code
        self.reason = reason


def refuse_model(error: ModelFilesError) -> StageError:
    """Return the failure of a model that is none, or none that is loaded."""
    reason = Reason.MODEL_UNSAFE if isinstance(error, UnsafeModelError) else Reason.MODEL_UNSUPPORTED
    return StageError(ExitCode.BAD_CONFIG, reason, str(error))


def diagnose(error: BaseException, fallback: Reason) -> StageError:
    """Return the failure that an exception means.

    What libraries of C++ and Rust raise has no type or number of its own: there the text decides.
    """
    if isinstance(error, StageError):
        return error
    text = f"{type(error).__name__}: {error}"
    number = error.errno if isinstance(error, OSError) else None
    if "CUDA out of memory" in text:
        return StageError(
            ExitCode.OUT_OF_MEMORY,
            Reason.GPU_OUT_OF_MEMORY,
            "the memory of the GPU ran out: lower hyperparameters.microBatchSize or maxLength, or take a larger GPU",
        )
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return StageError(
            ExitCode.OUT_OF_MEMORY,
            Reason.OUT_OF_MEMORY,
            "out of memory: raise compute.resources.memory, or lower hyperparameters.microBatchSize or maxLength",
        )
    if number in (errno.ENOSPC, errno.EDQUOT) or any(sign in text for sign in _FULL):
        return StageError(
            ExitCode.STORAGE_FULL,
            Reason.STORAGE_FULL,
            f"the volume of the output is full: make it larger, or remove what is no longer needed ({error})",
        )
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return StageError(
            ExitCode.ACCESS_DENIED,
            Reason.VOLUME_ACCESS_DENIED,
            f"{error}: give the group of the pods access to the volume",
        )
    return StageError(ExitCode.SOFTWARE, fallback, text)
