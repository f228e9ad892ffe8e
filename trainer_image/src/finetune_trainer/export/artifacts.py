"""The artifacts that trainings left: found as they were proven, and merged into the model that they belong to."""

import logging
import shutil
from pathlib import Path
from typing import Any

from finetune_api.artifact import Artifact
from finetune_api.conditions import Reason
from finetune_api.contract.mounts import path_of
from finetune_api.digest import digest_directory

from finetune_trainer.failures import StageError

_LOG = logging.getLogger(__name__)


def find_proven(artifact: Artifact, job_name: str, root: Path) -> Path:
    """Return the directory of an artifact that is still what its job has proven.

    Raises:
        StageError: it is gone or was changed.
    """
    directory = path_of(artifact.uri, root)
    if not directory.is_dir():
        raise StageError(
            Reason.MODEL_NOT_FOUND,
            f"the result of FineTuneJob {job_name} is gone: there is no {artifact.uri}",
        )
    if digest_directory(directory) != artifact.digest:
        raise StageError(
            Reason.ADAPTER_REFUSED,
            f"{artifact.uri} is not {artifact.digest[:19]}: it was changed after it was proven",
        )
    return directory


def merge(model_directory: Path, adapter: Path, target: Path) -> None:
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
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    _LOG.info("the adapter is merged into %s", target)
