"""The environment variables of the trackers."""

import json
from typing import Any

from finetune_api.contract.jobfile import JobDirectory
from finetune_trainer.train.tracking import build_environment
from unit.specs import job_file


def environment(tracking: dict[str, Any] | None, attempt: int = 1) -> dict[str, str]:
    """Return the environment variables of a job's trackers."""
    job = job_file(tracking=tracking)
    return build_environment(job, JobDirectory.of(job), attempt)


def test_only_the_trackers_of_the_job_are_configured() -> None:
    assert environment(None) == {}
    files = environment({"tensorBoard": {}})
    assert files == {"TENSORBOARD_LOGGING_DIR": "/claims/finetune-artifacts/shop-01234567/tensorboard"}
    mlflow = {"trackingUri": "http://mlflow:5000", "experiment": "shop"}
    env = environment({"mlflow": mlflow}, 2)
    assert {name.partition("_")[0] for name in env} == {"MLFLOW"}
    assert json.loads(env["MLFLOW_TAGS"])["mlflow.runName"] == "shop-2"


def test_a_retry_continues_the_same_run_of_wandb() -> None:
    wandb = {"project": "shop", "entity": "team", "mode": "Offline"}
    first, second = (environment({"wandb": wandb}, attempt) for attempt in (1, 2))
    assert first["WANDB_RUN_ID"] == second["WANDB_RUN_ID"]
    assert (first["WANDB_NAME"], second["WANDB_NAME"]) == ("shop-1", "shop-2")
    assert (first["WANDB_MODE"], first["WANDB_ENTITY"]) == ("offline", "team")
