"""How a stage fails: a reason for the status, from which its exit code follows, and a sentence for people."""

import errno
import os

from finetune_api.conditions import Reason
from finetune_pod.modelfiles import ModelFilesError

_FULL = (os.strerror(errno.ENOSPC), "unexpected pos", "iostream error")
"""What a volume that is full is called: by safetensors, and by torch, whose writer finds less than it wrote."""


class StageError(Exception):
    """A failure whose reason is known."""

    def __init__(self, reason: Reason, message: str) -> None:
        """Keep what the report will say."""
        super().__init__(message)
        self.reason = reason


def refuse_model(error: ModelFilesError) -> StageError:
    """Return the failure of a model that is none, or none that is loaded."""
    return StageError(error.reason, str(error))


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
            Reason.GPU_OUT_OF_MEMORY,
            "the memory of the GPU ran out: lower hyperparameters.microBatchSize or maxLength, or take a larger GPU",
        )
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return StageError(
            Reason.OUT_OF_MEMORY,
            "out of memory: raise compute.resources.memory, or lower hyperparameters.microBatchSize or maxLength",
        )
    if number in (errno.ENOSPC, errno.EDQUOT) or any(sign in text for sign in _FULL):
        return StageError(
            Reason.STORAGE_FULL,
            f"the volume of the output is full: make it larger, or remove what is no longer needed ({error})",
        )
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return StageError(
            Reason.VOLUME_ACCESS_DENIED,
            f"{error}: give the group of the pods access to the volume",
        )
    return StageError(fallback, text)
