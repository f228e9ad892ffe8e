"""Brings models and data to where they can be read: mounted paths, or downloads."""

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
from finetune_trainer.failures import StageError, refuse_model
from finetune_trainer.fetch.hub import fetch_hub_data, fetch_hub_model
from finetune_trainer.weights import check_weights


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
            with with_reasons(Reason.DATASET_NOT_FOUND):
                files = fetch_hub_data(source, role, _is_wanted)
            return files or _refuse_empty(source.uri)
        case "s3":
            directory = below(root, SCRATCH / "data" / role.lower())
            with with_reasons(Reason.DATASET_NOT_FOUND):
                files = fetch_objects(source.uri, role, directory, _is_wanted)
            return files or _refuse_empty(source.uri)
        case "https":
            return [_fetch_https(source.uri, role, below(root, SCRATCH / "data" / role.lower()))]
    path = path_of(source.uri, root)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise StageError(
            Reason.DATASET_NOT_FOUND,
            f"{source.uri} is not there: check the claim or ConfigMap and the path in it",
        )
    files = sorted(file for file in path.rglob("*") if is_data_file(file) and file.resolve().is_relative_to(path))
    return files or _refuse_empty(source.uri)


def _fetch_https(uri: str, role: Source, directory: Path) -> Path:
    from finetune_trainer.fetch.https import fetch_file

    target = directory / uri.rpartition("/")[2]
    if not is_data_file(target):
        _refuse_empty(uri)
    hosts = [host for host in os.environ.get(HTTPS_HOSTS, "").split(",") if host]
    with with_reasons(Reason.DATASET_NOT_FOUND):
        fetch_file(uri, os.environ.get(credential_variable(role, "HTTPS_TOKEN")), hosts, target)
    return target


def _is_wanted(name: str) -> bool:
    return is_data_file(Path(name))


def _refuse_empty(uri: str) -> NoReturn:
    raise StageError(
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
        with with_reasons(Reason.MODEL_NOT_FOUND):
            directory = fetch_model(model.uri, below(root, SCRATCH / "models"), weights=weights)
    elif uri.scheme == "hf":
        with with_reasons(Reason.MODEL_NOT_FOUND):
            directory = fetch_hub_model(model, weights=weights)
    else:
        directory = path_of(model.uri, root)
    if not (directory / "config.json").is_file():
        raise StageError(
            Reason.MODEL_NOT_FOUND,
            f"{model.uri} holds no config.json: is it a model's directory?",
        )
    if weights or uri.scheme == "pvc":
        try:
            check_safetensors([path.name for path in directory.iterdir()], model.uri)
        except ModelFilesError as error:
            raise refuse_model(error) from None
    check_weights(directory, model.uri)
    return directory


@contextmanager
def with_reasons(missing: Reason) -> Iterator[None]:
    """Turn the failures of a server into reasons; `missing` is that of what is not there."""
    try:
        yield
    except FetchError as error:
        raise StageError(error.reason or missing, str(error)) from None
    except ModelFilesError as error:
        raise refuse_model(error) from None
