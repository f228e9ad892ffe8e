"""Starts from the result of a parent FineTuneJob: continues to train its adapter, or merges it into the base model."""

import logging
from pathlib import Path
from typing import Any

from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.mounts import path_of

from finetune_trainer.export.artifacts import find_artifact, merge_adapter
from finetune_trainer.loading import import_peft
from finetune_trainer.prepared import read_chat_template

_LOG = logging.getLogger(__name__)


def merge_parent_adapter(job: JobFile, model_directory: Path, directory: JobDirectory, processes: Any) -> Path:
    """Return the directory of the model to train on: the base model, or the merged model if the job asks for that.

    The main process writes the merged model once, into the directory of the job. The evaluation and the server load it
    from there.

    Args:
        job: the FineTuneJob.
        model_directory: the base model.
        directory: the directory of the FineTuneJob.
        processes: accelerate's PartialState; all processes wait until the model is written.

    Raises:
        StageError: the parent job's adapter is missing or was changed.
    """
    parent = job.warm_start
    if parent is None:
        return model_directory
    target = directory.merged
    if processes.is_main_process:
        adapter = find_artifact(parent.artifact, parent.job, directory.root)
        if parent.parent_adapter == "Merge" and not target.exists():
            merge_adapter(model_directory, adapter, target, read_chat_template(job, directory))
    if parent.parent_adapter != "Merge":
        return model_directory
    processes.wait_for_everyone()
    return target


def load_parent_adapter(job: JobFile, model: Any, model_directory: Path, directory: JobDirectory) -> Any:
    """Return the model with the parent job's adapter, which is trained further; None if a new adapter is trained."""
    parent = job.warm_start
    if parent is None or parent.parent_adapter != "Train":
        return None
    adapter = path_of(parent.artifact.uri, directory.root)
    model = import_peft().PeftModel.from_pretrained(model, adapter, is_trainable=True)
    # The adapter's file contains a URI, but PEFT needs a path: it reads the size of the vocabulary there when it saves.
    model.peft_config["default"].base_model_name_or_path = str(model_directory)
    _LOG.info("continuing to train the adapter of FineTuneJob %s", parent.job)
    return model
