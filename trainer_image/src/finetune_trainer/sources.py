"""Brings models and data to where they can be read: mounted paths, or downloads from the hub."""

import os
from collections.abc import Callable
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DataSource
from finetune_api.modelserver import Model
from finetune_api.mounts import MODEL_TOKEN, path_of
from finetune_api.reports import ExitCode
from finetune_api.uris import parse_uri

from finetune_trainer.failures import StageError

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja")


def below(root: Path, path: os.PathLike[str] | str) -> Path:
    """Return an absolute path of a pod as it is below another root."""
    return root / str(path).lstrip("/")


def find_data(source: DataSource, root: Path, token_variable: str) -> Path:
    """Return the file with the data.

    Args:
        source: where it lies.
        root: directory below which claims and ConfigMaps are mounted.
        token_variable: environment variable that holds the hub's token for it, if it has one.

    Raises:
        StageError: it is not there, or may not be read.
    """
    uri = parse_uri(source.uri)
    if uri.scheme == "hf":
        from huggingface_hub import hf_hub_download

        return Path(
            _from_hub(
                source.uri,
                Reason.DATASET_NOT_FOUND,
                lambda: hf_hub_download(
                    uri.authority, uri.path, repo_type="dataset", token=os.environ.get(token_variable) or False
                ),
            )
        )
    path = below(root, path_of(source.uri))
    if not path.is_file():
        raise StageError(
            ExitCode.NOT_FOUND,
            Reason.DATASET_NOT_FOUND,
            f"{source.uri} is not a file: check the claim or ConfigMap and the path in it",
        )
    return path


def find_model(model: Model, root: Path, *, weights: bool) -> Path:
    """Return the directory with the base model; without weights only what the tokenizer needs is fetched.

    Raises:
        StageError: it is not there, may not be read, or would run code or pickles of its own.
    """
    uri = parse_uri(model.uri)
    if uri.scheme == "hf":
        from huggingface_hub import snapshot_download

        patterns = [*_SMALL, *(_WEIGHTS if weights else ())]
        directory = Path(
            _from_hub(
                model.uri,
                Reason.MODEL_NOT_FOUND,
                lambda: snapshot_download(
                    uri.authority,
                    revision=model.revision,
                    allow_patterns=patterns,
                    token=os.environ.get(MODEL_TOKEN) or False,
                ),
            )
        )
    else:
        directory = below(root, path_of(model.uri))
    if not (directory / "config.json").is_file():
        raise StageError(
            ExitCode.NOT_FOUND,
            Reason.MODEL_NOT_FOUND,
            f"{model.uri} holds no config.json: is it a model's directory?",
        )
    if uri.scheme != "hf" and not list(directory.glob("*.safetensors")):
        raise StageError(
            ExitCode.BAD_CONFIG,
            Reason.MODEL_UNSUPPORTED,
            f"{model.uri} holds no *.safetensors: pickles are not loaded",
        )
    return directory


def _from_hub(uri: str, missing: Reason, download: Callable[[], object]) -> str:
    """Run a download and turn the hub's answers into reasons."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return str(download())
    except GatedRepoError:
        raise StageError(
            ExitCode.ACCESS_DENIED,
            Reason.ACCESS_DENIED,
            f"{uri} is gated: accept its terms on the hub, and give a token's Secret in secretRef",
        ) from None
    except LocalEntryNotFoundError as error:
        raise StageError(ExitCode.TRANSIENT, Reason.RETRYING, f"{uri}: the hub cannot be reached: {error}") from None
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        hint = "check the name; a private one needs a token's Secret in secretRef"
        raise StageError(ExitCode.NOT_FOUND, missing, f"{uri}: {str(error).splitlines()[0]}; {hint}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise StageError(
                ExitCode.ACCESS_DENIED, Reason.ACCESS_DENIED, f"{uri}: the hub refuses the token in secretRef"
            ) from None
        raise StageError(ExitCode.TRANSIENT, Reason.RETRYING, f"{uri}: the hub answers {status}") from None
