"""What the trackers' libraries are told."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobfile import JobFile
from finetune_trainer.tracking import build_environment
from pydantic import ValidationError


def job(tracking: dict[str, Any] | None) -> JobFile:
    spec = {
        "model": {"uri": "pvc://models/base"},
        "dataset": {"train": {"uri": "pvc://data/x"}},
        "method": {"sft": {}},
        "adapter": {"lora": {}},
        "tracking": tracking,
    }
    return JobFile("shop", "0123456789", FineTuneJobSpec.model_validate(spec))


def test_each_tracker_is_told_what_the_job_says_and_no_other() -> None:
    assert build_environment(job(None), Path("/"), 1) == {}
    files = build_environment(job({"tensorBoard": {}}), Path("/"), 1)
    assert files == {"TENSORBOARD_LOGGING_DIR": "/claims/finetune-artifacts/shop-01234567/tensorboard"}
    mlflow = {"trackingUri": "http://mlflow:5000", "experiment": "shop"}
    env = build_environment(job({"mlflow": mlflow}), Path("/"), 2)
    assert {name.partition("_")[0] for name in env} == {"MLFLOW"}
    assert json.loads(env["MLFLOW_TAGS"])["mlflow.runName"] == "shop-2"


def test_a_retry_goes_on_in_the_same_run_of_wandb() -> None:
    wandb = {"project": "shop", "entity": "team", "mode": "Offline"}
    first, second = (build_environment(job({"wandb": wandb}), Path("/"), attempt) for attempt in (1, 2))
    assert first["WANDB_RUN_ID"] == second["WANDB_RUN_ID"]
    assert (first["WANDB_NAME"], second["WANDB_NAME"]) == ("shop-1", "shop-2")
    assert (first["WANDB_MODE"], first["WANDB_ENTITY"]) == ("offline", "team")


@pytest.mark.parametrize(
    ("tracking", "message"),
    [
        ({"wandb": {"project": "shop"}}, "wandb needs a secretRef to be online"),
        ({"mlflow": {"trackingUri": "https://me:secret@mlflow", "experiment": "a"}}, "trackingUri"),
        ({"mlflow": {"trackingUri": "file:///etc", "experiment": "a"}}, "trackingUri"),
    ],
)
def test_trackers_that_cannot_work_are_refused(tracking: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        job(tracking)
