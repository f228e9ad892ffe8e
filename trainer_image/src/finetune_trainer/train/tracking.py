"""Sends metrics to trackers through the callbacks of transformers. No tracker can fail the training."""

import json
import logging
import os
from typing import Any

from finetune_api.contract.jobfile import JobDirectory, JobFile
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_LOG = logging.getLogger(__name__)


def build_trackers(job: JobFile, directory: JobDirectory, attempt: int) -> list[TrainerCallback]:
    """Return the callbacks of the trackers in the job's spec, and set the environment variables that they read."""
    from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

    tracking = job.spec.tracking
    if tracking is None:
        return []
    os.environ.update(build_environment(job, directory, attempt))
    trackers = {
        "TensorBoard": (tracking.tensor_board, TensorBoardCallback),
        "W&B": (tracking.wandb, WandbCallback),
        "MLflow": (tracking.mlflow, MLflowCallback),
    }
    return [Tracker(name, callback()) for name, (settings, callback) in trackers.items() if settings is not None]


def build_environment(job: JobFile, directory: JobDirectory, attempt: int) -> dict[str, str]:
    """Return the environment variables that the callbacks and the libraries of the trackers read. No I/O.

    A retry continues the same TensorBoard directory and the same W&B run. MLflow generates the IDs of its runs, so each
    attempt is a separate run there, with tags that identify the job.
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
            # Without these, an unreachable server blocks the GPUs for minutes, and without limit at the end.
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
    """Wraps a callback of transformers and disables it at its first failure, so that the training continues."""

    def __init__(self, name: str, callback: TrainerCallback) -> None:
        """Wrap a callback.

        Args:
            name: name of the tracker, for the log.
            callback: the callback of the tracker.
        """
        self._name = name
        self._callback: TrainerCallback | None = callback

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Start the run."""
        self._forward("on_train_begin", args, state, control, **rest)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        """Send metrics."""
        self._forward("on_log", args, state, control, **rest)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        """End the run."""
        self._forward("on_train_end", args, state, control, **rest)

    def _forward(self, event: str, *arguments: Any, **rest: Any) -> None:
        if self._callback is None:
            return
        try:
            getattr(self._callback, event)(*arguments, **rest)
        except Exception as error:  # noqa: BLE001 - a tracker may raise any exception
            _LOG.warning("%s failed and is disabled; the training continues: %s", self._name, error)
            self._callback = None
