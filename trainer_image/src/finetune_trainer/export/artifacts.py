"""Artifacts of trainings: verifies their digest, and merges adapters into their base model."""

import logging
import shutil
from pathlib import Path
from typing import Any

from finetune_api.artifact import Artifact
from finetune_api.conditions import Reason
from finetune_api.contract.mounts import path_of
from finetune_api.digest import digest_directory
from finetune_pod.template_file import TemplateFile

from finetune_trainer.failures import StageError
from finetune_trainer.loading import import_peft, load_language_model

_LOG = logging.getLogger(__name__)


def find_artifact(artifact: Artifact, job_name: str, root: Path) -> Path:
    """Return the directory of an artifact whose content matches its digest.

    Args:
        artifact: the artifact.
        job_name: name of the FineTuneJob that produced it, for messages.
        root: the directory below which claims are mounted.

    Raises:
        StageError: the artifact is missing or was changed.
    """
    directory = path_of(artifact.uri, root)
    if not directory.is_dir():
        raise StageError(
            Reason.MODEL_NOT_FOUND,
            f"the result of FineTuneJob {job_name} is missing: {artifact.uri} does not exist",
        )
    if digest_directory(directory) != artifact.digest:
        raise StageError(
            Reason.ADAPTER_REFUSED,
            f"{artifact.uri} does not match {artifact.digest[:19]}: it was changed after the training; train again",
        )
    return directory


def merge_adapter(model_directory: Path, adapter: Path, target: Path, template: TemplateFile | None) -> None:
    """Merge an adapter into the weights of its base model, in the precision of the base model.

    Args:
        model_directory: the base model.
        adapter: the adapter.
        target: the directory of the merged model, which appears only when complete.
        template: the chat template of the merged model; None is that of the base model.
    """
    from transformers import AutoTokenizer

    partial = target.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    model = load_language_model(model_directory, dtype="auto")
    merged: Any = import_peft().PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(partial, safe_serialization=True)
    tokenizer = AutoTokenizer.from_pretrained(model_directory, trust_remote_code=False)
    if template:
        tokenizer.chat_template = template.text
    tokenizer.save_pretrained(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    _LOG.info("wrote the merged model to %s", target)
