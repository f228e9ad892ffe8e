"""Finds models and data on mounted volumes, and downloads the others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from finetune_api.conditions import Reason
from finetune_api.contract.mounts import HTTPS_HOSTS, SCRATCH, Source, below, credential_variable, path_of
from finetune_api.data import DataSource
from finetune_api.modelserver import Model
from finetune_api.uris import parse_uri
from finetune_pod.fetching import FetchError
from finetune_pod.modelfiles import ModelFilesError, check_safetensors
from finetune_pod.objectstore import fetch_model, fetch_objects

from finetune_trainer.data_files import is_data_file
from finetune_trainer.failures import StageError
from finetune_trainer.fetch.hub import fetch_hub_data, fetch_hub_model
from finetune_trainer.weights import check_weights


def find_data(source: DataSource, root: Path, role: Source) -> list[Path]:
    """Return the files with the data, sorted by name: the file itself, or all data files below a directory.

    Args:
        source: the location of the data.
        root: the directory below which claims and ConfigMaps are mounted.
        role: the credentials to use.

    Raises:
        StageError: there are no data files, or they cannot be fetched.
    """
    uri = parse_uri(source.uri)
    match uri.scheme:
        case "hf":
            with translate_errors(Reason.DATASET_NOT_FOUND):
                files = fetch_hub_data(source, role, _has_data_suffix)
            return files or _raise_no_data(source.uri)
        case "s3":
            directory = below(root, SCRATCH / "data" / role.lower())
            with translate_errors(Reason.DATASET_NOT_FOUND):
                files = fetch_objects(source.uri, role, directory, _has_data_suffix)
            return files or _raise_no_data(source.uri)
        case "https":
            return [_fetch_https(source.uri, role, below(root, SCRATCH / "data" / role.lower()))]
    path = path_of(source.uri, root)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise StageError(
            Reason.DATASET_NOT_FOUND,
            f"{source.uri} does not exist: check the claim or ConfigMap and the path in it",
        )
    files = sorted(file for file in path.rglob("*") if is_data_file(file) and file.resolve().is_relative_to(path))
    return files or _raise_no_data(source.uri)


def _fetch_https(uri: str, role: Source, directory: Path) -> Path:
    from finetune_trainer.fetch.https import fetch_file

    target = directory / uri.rpartition("/")[2]
    if not is_data_file(target):
        _raise_no_data(uri)
    hosts = [host for host in os.environ.get(HTTPS_HOSTS, "").split(",") if host]
    with translate_errors(Reason.DATASET_NOT_FOUND):
        fetch_file(uri, os.environ.get(credential_variable(role, "HTTPS_TOKEN")), hosts, target)
    return target


def _has_data_suffix(name: str) -> bool:
    return is_data_file(Path(name))


def _raise_no_data(uri: str) -> NoReturn:
    raise StageError(
        Reason.DATASET_NOT_FOUND,
        f"{uri} contains no data files: their names end in .jsonl, .json, .csv, .tsv or .parquet",
    )


def find_model(model: Model, root: Path, *, weights: bool) -> Path:
    """Return the directory of the base model.

    Args:
        model: the model.
        root: the directory below which claims are mounted.
        weights: whether to fetch the weights, or only the configuration and the tokenizer.

    Raises:
        StageError: the model does not exist, cannot be fetched, has no safetensors, or its weights are damaged.
    """
    uri = parse_uri(model.uri)
    if uri.scheme == "s3":
        with translate_errors(Reason.MODEL_NOT_FOUND):
            directory = fetch_model(model.uri, below(root, SCRATCH / "models"), weights=weights)
    elif uri.scheme == "hf":
        with translate_errors(Reason.MODEL_NOT_FOUND):
            directory = fetch_hub_model(model, weights=weights)
    else:
        directory = path_of(model.uri, root)
    if not (directory / "config.json").is_file():
        raise StageError(
            Reason.MODEL_NOT_FOUND,
            f"{model.uri} contains no config.json: check that it is the directory of a model",
        )
    if weights or uri.scheme == "pvc":
        try:
            check_safetensors([path.name for path in directory.iterdir()], model.uri)
        except ModelFilesError as error:
            raise StageError(error.reason, str(error)) from None
    check_weights(directory, model.uri)
    return directory


@contextmanager
def translate_errors(missing: Reason) -> Iterator[None]:
    """Raise errors of fetching as StageErrors; `missing` is the reason if the source does not exist."""
    try:
        yield
    except FetchError as error:
        raise StageError(error.reason or missing, str(error)) from None
    except ModelFilesError as error:
        raise StageError(error.reason, str(error)) from None
