"""Reads manifests as kubectl does."""

from pathlib import Path
from typing import Any

import yaml
from finetune_api.contract.jobfile import describe_errors
from finetune_api.finetunejob import FineTuneJob
from finetune_api.meta import API_VERSION
from finetune_api.modelserver import ModelServer
from pydantic import ValidationError

from finetune.errors import CommandError

Manifest = dict[str, Any]
_KINDS = {"FineTuneJob": FineTuneJob, "ModelServer": ModelServer}


def read_manifests(path: Path) -> list[Manifest]:
    """Return the objects of a YAML file, its FineTuneJobs and ModelServers checked as the API server checks them.

    Raises:
        CommandError: the file is not YAML, or an object is invalid; the message names the fields.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} is not YAML: {error}") from None
    for document in documents:
        check_object(path, document)
    return documents


def check_object(path: Path, document: Any) -> None:
    """Check one object of a file.

    Raises:
        CommandError: it is invalid; the message names the fields.
    """
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise CommandError(f"{path}: an object needs kind, and metadata with a name")
    kind, name = document.get("kind"), metadata["name"]
    model = _KINDS.get(kind)
    if model is None:
        return
    if document.get("apiVersion") != API_VERSION:
        raise CommandError(f"{path}: apiVersion of {kind} {name} must be {API_VERSION}")
    try:
        model.model_validate({"spec": document.get("spec")})
    except ValidationError as error:
        raise CommandError(f"{path}: {kind} {name} is invalid: {describe_errors(error)}") from None


def find_job(path: Path, documents: list[Manifest]) -> Manifest:
    """Return the FineTuneJob of a file.

    Raises:
        CommandError: there is none, or several.
    """
    jobs = [document for document in documents if document["kind"] == "FineTuneJob"]
    if len(jobs) != 1:
        raise CommandError(f"{path} has {len(jobs)} objects of the kind FineTuneJob, and needs one")
    return jobs[0]
