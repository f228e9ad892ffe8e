"""Where proven results are copied to: a bucket, and a repository on the hub."""

import os
from collections.abc import Mapping
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobFile
from finetune_api.contract.mounts import BUCKET, HUB, JOB_FILE, credential_variable
from finetune_api.output import HubRepository
from finetune_api.uris import parse_uri
from finetune_pod.objectstore import store_objects

from finetune_trainer.fetch.hub import asking_hub
from finetune_trainer.fetch.sources import with_reasons


def check_destinations(job: JobFile) -> None:
    """Find out before the training whether its result may be written.

    The job's file is put into the bucket, and the repository is made where it does not exist.

    Raises:
        StageError: a bucket is not there, credentials are refused, or a server cannot be reached.
    """
    if job.bucket_uri:
        copy_to_bucket(job.bucket_uri, {JOB_FILE.name: job.to_json().encode()})
    if job.spec.output and job.spec.output.hub:
        _make_repository(job.spec.output.hub)


def copy_to_bucket(uri: str, contents: Mapping[str, Path | bytes]) -> None:
    """Copy files, by their names there, into the job's directory in the bucket.

    Raises:
        StageError: the bucket is not there, may not be written, or cannot be reached.
    """
    with with_reasons(Reason.OUTPUT_NOT_FOUND):
        store_objects(uri, BUCKET, contents)


def push_to_hub(job: JobFile, hub: HubRepository, contents: Mapping[str, Path | bytes]) -> str:
    """Push files, by their names there, in one commit; return its hash. What was pushed before is not sent again.

    Raises:
        StageError: the repository is not there, may not be written, or the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    name, token = parse_uri(hub.uri).authority, _token()

    def push() -> str:
        operations = [CommitOperationAdd(path, content) for path, content in contents.items()]
        return HfApi().create_commit(name, operations, commit_message=f"FineTuneJob {job.name}", token=token).oid

    with with_reasons(Reason.OUTPUT_NOT_FOUND):
        return asking_hub(hub.uri, push)


def _make_repository(hub: HubRepository) -> None:
    from huggingface_hub import HfApi

    name, token = parse_uri(hub.uri).authority, _token()

    def make() -> None:
        HfApi().create_repo(name, private=hub.private, exist_ok=True, token=token)
        # A repository that may be read counts as made, though the token may not write there.
        HfApi().auth_check(name, token=token, write=True)

    with with_reasons(Reason.OUTPUT_NOT_FOUND):
        asking_hub(hub.uri, make)


def _token() -> str | bool:
    return os.environ.get(credential_variable(HUB, "HF_TOKEN")) or False
