"""Begins with what an earlier FineTuneJob made: its adapter goes on training, or is merged into the base model."""

import logging
import shutil
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.continuation import Continuation
from finetune_api.digest import digest_directory
from finetune_api.jobfile import JobDirectory, JobFile
from finetune_api.mounts import path_of
from finetune_api.reports import ExitCode

from finetune_trainer.failures import StageError
from finetune_trainer.sources import below

_LOG = logging.getLogger(__name__)


def merge_earlier_adapter(job: JobFile, model_directory: Path, root: Path, processes: Any) -> Path:
    """Return the directory of the model to train on: that of the base model, or of the merged one.

    The merged model is written once, by the first process, beside the job's other results: the evaluation and the
    server load it from there.

    Args:
        job: the FineTuneJob.
        model_directory: the base model.
        root: directory below which claims are mounted.
        processes: accelerate's state, so that all wait for the first.

    Raises:
        StageError: the earlier job's result is gone or was changed.
    """
    earlier = job.continuation
    if earlier is None:
        return model_directory
    if processes.is_main_process:
        _check_digest(earlier, root)
    if earlier.earlier_adapter != "Merge":
        return model_directory
    target = below(root, JobDirectory.of(job).merged)
    if processes.is_main_process and not target.exists():
        _merge(model_directory, _directory(earlier, root), target)
    processes.wait_for_everyone()
    return target


def load_earlier_adapter(job: JobFile, model: Any, model_directory: Path, root: Path) -> Any:
    """Return the model with the earlier job's adapter on it, ready to be trained; None where a new one begins."""
    earlier = job.continuation
    if earlier is None or earlier.earlier_adapter != "Train":
        return None
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, _directory(earlier, root), is_trainable=True)
    # PEFT looks there for the size of the vocabulary when it saves; the file names a URI.
    adapted.peft_config["default"].base_model_name_or_path = str(model_directory)
    _LOG.info("the adapter of %s goes on training", earlier.job)
    return adapted


def _directory(earlier: Continuation, root: Path) -> Path:
    return below(root, path_of(earlier.artifact.uri))


def _check_digest(earlier: Continuation, root: Path) -> None:
    directory = _directory(earlier, root)
    if not directory.is_dir():
        raise StageError(
            ExitCode.NOT_FOUND,
            Reason.MODEL_NOT_FOUND,
            f"the result of FineTuneJob {earlier.job} is gone: there is no {earlier.artifact.uri}",
        )
    if digest_directory(directory) != earlier.artifact.digest:
        raise StageError(
            ExitCode.BAD_CONFIG,
            Reason.ADAPTER_REFUSED,
            f"{earlier.artifact.uri} is not {earlier.artifact.digest[:19]}: it was changed after it was proven",
        )


def _merge(model_directory: Path, adapter: Path, target: Path) -> None:
    """Write the base model with the adapter in its weights, whole or not at all, in the precision that it came in."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    partial = target.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(
        model_directory, dtype="auto", use_safetensors=True, trust_remote_code=False
    )
    merged: Any = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(partial, safe_serialization=True)
    AutoTokenizer.from_pretrained(model_directory, trust_remote_code=False).save_pretrained(partial)
    partial.rename(target)
    _LOG.info("the earlier adapter is merged into %s", target)
