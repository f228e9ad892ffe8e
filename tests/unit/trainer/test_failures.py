"""The reasons of exceptions."""

import pytest
from finetune_api.conditions import Reason
from finetune_trainer.failures import diagnose


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), Reason.STORAGE_FULL),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried"), Reason.GPU_OUT_OF_MEMORY),
        (PermissionError(13, "denied"), Reason.VOLUME_ACCESS_DENIED),
        (OSError(30, "Read-only file system"), Reason.VOLUME_ACCESS_DENIED),
        (RuntimeError("I/O error: No space left on device (os error 28)"), Reason.STORAGE_FULL),
        (KeyError("x"), Reason.TRAINING_FAILED),
    ],
)
def test_exceptions_have_reasons(error: Exception, reason: Reason) -> None:
    assert diagnose(error, Reason.TRAINING_FAILED).reason == reason
