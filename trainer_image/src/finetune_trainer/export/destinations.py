"""The destinations of results: a bucket, and a repository on the hub."""

import os
from collections.abc import Mapping
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobFile
from finetune_api.contract.mounts import BUCKET, HUB, JOB_FILE, credential_variable
from finetune_api.output import HubRepository
from finetune_api.uris import parse_uri
from finetune_pod.objectstore import store_objects

from finetune_trainer.fetch.hub import call_hub
from finetune_trainer.fetch.sources import translate_errors


def check_destinations(job: JobFile) -> None:
    """Check before the training that its result can be written to every destination.

    This writes the FineTuneJob file to the bucket, and creates the repository if it does not exist.

    Raises:
        StageError: the bucket does not exist, the credentials are refused, or a server is unreachable.
    """
    if job.bucket_uri:
        copy_to_bucket(job.bucket_uri, {JOB_FILE.name: job.to_json().encode()})
    if job.spec.output and job.spec.output.hub:
        _create_repository(job.spec.output.hub)


def copy_to_bucket(uri: str, contents: Mapping[str, Path | bytes]) -> None:
    """Copy files into the job's directory in the bucket.

    Args:
        uri: the directory.
        contents: files or their content, by their name below the directory.

    Raises:
        StageError: the bucket does not exist, is not writable, or is unreachable.
    """
    with translate_errors(Reason.OUTPUT_NOT_FOUND):
        store_objects(uri, BUCKET, contents)


def push_to_hub(job: JobFile, hub: HubRepository, contents: Mapping[str, Path | bytes]) -> str:
    """Push files in one commit, and return its hash. The hub's client skips files that were pushed before.

    Args:
        job: the FineTuneJob, which the message of the commit names.
        hub: the repository.
        contents: files or their content, by their path in the repository.

    Raises:
        StageError: the repository does not exist, is not writable, or the hub is unreachable.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    name, token = parse_uri(hub.uri).authority, _token()

    def push() -> str:
        operations = [CommitOperationAdd(path, content) for path, content in contents.items()]
        return HfApi().create_commit(name, operations, commit_message=f"FineTuneJob {job.name}", token=token).oid

    with translate_errors(Reason.OUTPUT_NOT_FOUND):
        return call_hub(hub.uri, push)


def _create_repository(hub: HubRepository) -> None:
    from huggingface_hub import HfApi

    name, token = parse_uri(hub.uri).authority, _token()

    def create() -> None:
        HfApi().create_repo(name, private=hub.private, exist_ok=True, token=token)
        # create_repo succeeds for an existing repository even if the token cannot write to it.
        HfApi().auth_check(name, token=token, write=True)

    with translate_errors(Reason.OUTPUT_NOT_FOUND):
        call_hub(hub.uri, create)


def _token() -> str | bool:
    return os.environ.get(credential_variable(HUB, "HF_TOKEN")) or False
