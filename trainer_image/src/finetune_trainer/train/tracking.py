"""Sends the figures of a training to trackers, by transformers' own callbacks. None of them can fail the training."""

import json
import logging
import os
from typing import Any

from finetune_api.contract.jobfile import JobDirectory, JobFile
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_LOG = logging.getLogger(__name__)


def build_trackers(job: JobFile, directory: JobDirectory, attempt: int) -> list[TrainerCallback]:
    """Return the callbacks of the trackers that the job names, and set the variables that they read."""
    from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

    tracking = job.spec.tracking
    if tracking is None:
        return []
    os.environ.update(build_environment(job, directory, attempt))
    kinds = {
        "TensorBoard": (tracking.tensor_board, TensorBoardCallback),
        "W&B": (tracking.wandb, WandbCallback),
        "MLflow": (tracking.mlflow, MLflowCallback),
    }
    return [Tracker(name, kind()) for name, (wanted, kind) in kinds.items() if wanted is not None]


def build_environment(job: JobFile, directory: JobDirectory, attempt: int) -> dict[str, str]:
    """Return the variables that transformers' callbacks and the trackers' own libraries read. Pure.

    A retry goes on in the same directory for TensorBoard and in the same run of W&B; MLflow gives out the ids of
    its runs itself, so each attempt is a run there, found by its tags.
    """
    tracking = job.spec.tracking
    env: dict[str, str] = {}
    if tracking and tracking.tensor_board:
        env["TENSORBOARD_LOGGING_DIR"] = str(directory.tensorboard)
    if tracking and (wandb := tracking.wandb):
        env |= {
            "WANDB_PROJECT": wandb.project,
            "WANDB_MODE": wandb.mode.lower(),
            "WANDB_NAME": f"{job.name}-{attempt}",
            "WANDB_RUN_ID": f"{job.name}-{job.uid[:8]}",
            "WANDB_RESUME": "allow",
            "WANDB_DIR": str(directory.path),
            "WANDB_CONSOLE": "off",
            # Without these an unreachable server holds the GPUs for minutes, at the end without a limit.
            "WANDB_INIT_TIMEOUT": "30",
            "WANDB_FINISH_TIMEOUT": "60",
        }
        env |= {"WANDB_ENTITY": wandb.entity} if wandb.entity else {}
    if tracking and (mlflow := tracking.mlflow):
        env |= {
            "MLFLOW_TRACKING_URI": mlflow.tracking_uri,
            "MLFLOW_EXPERIMENT_NAME": mlflow.experiment,
            "MLFLOW_TAGS": json.dumps(
                {"mlflow.runName": f"{job.name}-{attempt}", "job": job.name, "uid": job.uid, "attempt": str(attempt)}
            ),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        }
    return env


class Tracker(TrainerCallback):  # type: ignore[misc]
    """One of transformers' callbacks, given up at its first failure: a training costs more than its curves."""

    def __init__(self, name: str, callback: TrainerCallback) -> None:
        """Wrap a callback; `name` is the tracker's, for the log."""
        self._name = name
        self._callback: TrainerCallback | None = callback

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Begin the run."""
        self._forward("on_train_begin", args, state, control, **rest)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        """Send figures."""
        self._forward("on_log", args, state, control, **rest)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        """End the run."""
        self._forward("on_train_end", args, state, control, **rest)

    def _forward(self, event: str, *arguments: Any, **rest: Any) -> None:
        if self._callback is None:
            return
        try:
            getattr(self._callback, event)(*arguments, **rest)
        except Exception as error:  # noqa: BLE001 - whatever a tracker does wrong
            _LOG.warning("%s is given up, the training goes on: %s", self._name, error)
            self._callback = None
