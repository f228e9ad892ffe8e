"""Begins with what an earlier FineTuneJob made: its adapter goes on training, or is merged into the base model."""

import logging
from pathlib import Path
from typing import Any

from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.mounts import path_of

from finetune_trainer.export.artifacts import find_proven, merge

_LOG = logging.getLogger(__name__)


def merge_earlier_adapter(job: JobFile, model_directory: Path, directory: JobDirectory, processes: Any) -> Path:
    """Return the directory of the model to train on: that of the base model, or of the merged one.

    The merged model is written once, by the first process, beside the job's other results: the evaluation and the
    server load it from there.

    Args:
        job: the FineTuneJob.
        model_directory: the base model.
        directory: of the FineTuneJob.
        processes: accelerate's state, so that all wait for the first.

    Raises:
        StageError: the earlier job's result is gone or was changed.
    """
    earlier = job.warm_start
    if earlier is None:
        return model_directory
    target = directory.merged
    if processes.is_main_process:
        adapter = find_proven(earlier.artifact, earlier.job, directory.root)
        if earlier.parent_adapter == "Merge" and not target.exists():
            merge(model_directory, adapter, target)
    if earlier.parent_adapter != "Merge":
        return model_directory
    processes.wait_for_everyone()
    return target


def load_earlier_adapter(job: JobFile, model: Any, model_directory: Path, directory: JobDirectory) -> Any:
    """Return the model with the earlier job's adapter on it, ready to be trained; None where a new one begins."""
    earlier = job.warm_start
    if earlier is None or earlier.parent_adapter != "Train":
        return None
    from peft import PeftModel

    adapter = path_of(earlier.artifact.uri, directory.root)
    adapted = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    # PEFT looks there for the size of the vocabulary when it saves; the file names a URI.
    adapted.peft_config["default"].base_model_name_or_path = str(model_directory)
    _LOG.info("the adapter of %s goes on training", earlier.job)
    return adapted
