"""Which trackers are refused at once."""

from typing import Any

import pytest
from pydantic import ValidationError
from unit.specs import job_file


@pytest.mark.parametrize(
    ("tracking", "message"),
    [
        ({"wandb": {"project": "shop"}}, "secretRef is required if mode is Online"),
        ({"mlflow": {"trackingUri": "https://me:secret@mlflow", "experiment": "a"}}, "trackingUri"),
        ({"mlflow": {"trackingUri": "file:///etc", "experiment": "a"}}, "trackingUri"),
    ],
)
def test_trackers_that_cannot_work_are_refused(tracking: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        job_file(tracking=tracking)
