"""Brings models and data to where they can be read: mounted paths, or downloads."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from finetune_api.conditions import Reason
from finetune_api.data import DataSource
from finetune_api.fetching import FetchError
from finetune_api.modelfiles import SMALL_FILES, WEIGHT_FILES, ModelFilesError
from finetune_api.modelserver import Model
from finetune_api.mounts import HTTPS_HOSTS, MODEL, SCRATCH, Source, credential_variable, path_of
from finetune_api.objectstore import fetch_model, fetch_objects
from finetune_api.reports import ExitCode
from finetune_api.uris import parse_uri

from finetune_trainer.failures import StageError
from finetune_trainer.files import is_data_file

_Result = TypeVar("_Result")


def below(root: Path, path: os.PathLike[str] | str) -> Path:
    """Return an absolute path of a pod as it is below another root."""
    return root / str(path).lstrip("/")


def find_data(source: DataSource, root: Path, role: Source) -> list[Path]:
    """Return the files with the data, sorted by name: the file itself, or all data files below a directory.

    Args:
        source: where they lie.
        root: directory below which claims and ConfigMaps are mounted.
        role: whose credentials are sent, if there are any.

    Raises:
        StageError: there are none, or they may not be read.
    """
    uri = parse_uri(source.uri)
    match uri.scheme:
        case "hf":
            return _fetch_data(source, os.environ.get(credential_variable(role, "HF_TOKEN")))
        case "s3":
            directory = below(root, SCRATCH / "data" / role.lower())
            with _fetching(Reason.DATASET_NOT_FOUND):
                files = fetch_objects(source.uri, role, directory, lambda name: is_data_file(Path(name)))
            return files or _refuse_empty(source.uri)
        case "https":
            return [_fetch_https(source.uri, role, below(root, SCRATCH / "data" / role.lower()))]
    path = below(root, path_of(source.uri))
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise StageError(
            ExitCode.NOT_FOUND,
            Reason.DATASET_NOT_FOUND,
            f"{source.uri} is not there: check the claim or ConfigMap and the path in it",
        )
    files = sorted(file for file in path.rglob("*") if is_data_file(file) and file.resolve().is_relative_to(path))
    return files or _refuse_empty(source.uri)


def _fetch_data(source: DataSource, token: str | None) -> list[Path]:
    """Download the data files of a dataset on the hub that lie at or below the path."""
    from huggingface_hub import HfApi, hf_hub_download

    uri = parse_uri(source.uri)
    options: dict[str, Any] = {"repo_type": "dataset", "revision": source.revision, "token": token or False}

    def fetch() -> list[Path]:
        if is_data_file(Path(uri.path)):
            return [Path(hf_hub_download(uri.authority, uri.path, **options))]
        names = HfApi().list_repo_files(uri.authority, **options)
        wanted = [name for name in sorted(names) if _lies_below(name, uri.path)]
        return [Path(hf_hub_download(uri.authority, name, **options)) for name in wanted]

    return _from_hub(source.uri, Reason.DATASET_NOT_FOUND, fetch) or _refuse_empty(source.uri)


def _fetch_https(uri: str, role: Source, directory: Path) -> Path:
    from finetune_trainer.https import fetch_file

    target = directory / uri.rpartition("/")[2]
    if not is_data_file(target):
        _refuse_empty(uri)
    hosts = [host for host in os.environ.get(HTTPS_HOSTS, "").split(",") if host]
    with _fetching(Reason.DATASET_NOT_FOUND):
        fetch_file(uri, os.environ.get(credential_variable(role, "HTTPS_TOKEN")), hosts, target)
    return target


def _lies_below(name: str, directory: str) -> bool:
    return is_data_file(Path(name)) and (not directory or name.startswith(f"{directory}/"))


def _refuse_empty(uri: str) -> NoReturn:
    raise StageError(
        ExitCode.NOT_FOUND,
        Reason.DATASET_NOT_FOUND,
        f"{uri} holds no data files: their names end in .jsonl, .json, .csv, .tsv or .parquet",
    )


def find_model(model: Model, root: Path, *, weights: bool) -> Path:
    """Return the directory with the base model; without weights only what the tokenizer needs is fetched.

    Raises:
        StageError: it is not there, may not be read, or would run code or pickles of its own.
    """
    uri = parse_uri(model.uri)
    if uri.scheme == "s3":
        with _fetching(Reason.MODEL_NOT_FOUND):
            directory = fetch_model(model.uri, below(root, SCRATCH / "models"), weights=weights)
    elif uri.scheme == "hf":
        from huggingface_hub import snapshot_download

        patterns = [*SMALL_FILES, *(WEIGHT_FILES if weights else ())]
        directory = _from_hub(
            model.uri,
            Reason.MODEL_NOT_FOUND,
            lambda: Path(
                snapshot_download(
                    uri.authority,
                    revision=model.revision,
                    allow_patterns=patterns,
                    token=os.environ.get(credential_variable(MODEL, "HF_TOKEN")) or False,
                )
            ),
        )
    else:
        directory = below(root, path_of(model.uri))
    if not (directory / "config.json").is_file():
        raise StageError(
            ExitCode.NOT_FOUND,
            Reason.MODEL_NOT_FOUND,
            f"{model.uri} holds no config.json: is it a model's directory?",
        )
    if uri.scheme == "pvc" and not list(directory.glob("*.safetensors")):
        raise StageError(
            ExitCode.BAD_CONFIG,
            Reason.MODEL_UNSUPPORTED,
            f"{model.uri} holds no *.safetensors: pickles are not loaded",
        )
    return directory


@contextmanager
def _fetching(missing: Reason) -> Iterator[None]:
    """Turn the failures of a download into reasons."""
    try:
        yield
    except FetchError as error:
        reasons = {
            ExitCode.NOT_FOUND: missing,
            ExitCode.ACCESS_DENIED: Reason.ACCESS_DENIED,
            ExitCode.TRANSIENT: Reason.RETRYING,
        }
        raise StageError(error.code, reasons.get(error.code, Reason.INVALID_SPEC), str(error)) from None
    except ModelFilesError as error:
        raise StageError(ExitCode.BAD_CONFIG, Reason.MODEL_UNSUPPORTED, str(error)) from None


def _from_hub(uri: str, missing: Reason, download: Callable[[], _Result]) -> _Result:
    """Run a download, and turn the hub's answers into reasons."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return download()
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
    except HTTPError as error:
        raise StageError(ExitCode.TRANSIENT, Reason.RETRYING, f"{uri}: the hub cannot be reached: {error}") from None
