"""Fetches models and data from the hub with huggingface_hub."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from finetune_api.conditions import Reason
from finetune_api.contract.mounts import MODEL, Source, credential_variable
from finetune_api.data import DataSource
from finetune_api.modelserver import Model
from finetune_api.uris import parse_uri
from finetune_pod.fetching import DownloadProgress, FetchError, retry_transient
from finetune_pod.modelfiles import SMALL_FILES, WEIGHT_FILES

_Result = TypeVar("_Result")


def fetch_hub_data(source: DataSource, role: Source, accepts: Callable[[str], bool]) -> list[Path]:
    """Download the files of a dataset at or below the path of the URI, all from one commit; return their paths.

    Args:
        source: the dataset.
        role: the credentials to use.
        accepts: whether to download a file, by its name.

    Raises:
        FetchError: the dataset does not exist, access is denied, or the hub is unreachable.
    """
    from huggingface_hub import HfApi, hf_hub_download

    uri = parse_uri(source.uri)
    token = os.environ.get(credential_variable(role, "HF_TOKEN")) or False

    def fetch() -> list[Path]:
        info = HfApi().dataset_info(uri.authority, revision=source.revision, token=token)
        names = sorted(file.rfilename for file in info.siblings or ())
        if uri.path and accepts(uri.path):
            names = [uri.path]
        return [
            Path(
                hf_hub_download(
                    uri.authority,
                    name,
                    repo_type="dataset",
                    revision=info.sha,
                    token=token,
                    tqdm_class=_build_progress_bar(f"{source.uri}: {name}"),
                )
            )
            for name in names
            if accepts(name) and (not uri.path or name == uri.path or name.startswith(f"{uri.path}/"))
        ]

    return call_hub(source.uri, fetch)


def fetch_hub_model(model: Model, *, weights: bool) -> Path:
    """Download a model, all from one commit; return its directory.

    Args:
        model: the model.
        weights: whether to download the weights, or only the configuration and the tokenizer.

    Raises:
        FetchError: the model does not exist, access is denied, or the hub is unreachable.
    """
    from huggingface_hub import snapshot_download

    def fetch() -> Path:
        return Path(
            snapshot_download(
                parse_uri(model.uri).authority,
                revision=model.revision,
                allow_patterns=[*SMALL_FILES, *(WEIGHT_FILES if weights else ())],
                token=os.environ.get(credential_variable(MODEL, "HF_TOKEN")) or False,
                tqdm_class=_build_progress_bar(model.uri),
            )
        )

    return call_hub(model.uri, fetch)


def _build_progress_bar(label: str) -> Any:
    """Return a subclass of tqdm that logs lines instead of drawing a bar, since a pod has no terminal."""
    from tqdm.auto import tqdm

    class LoggedProgress(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            # A snapshot has two bars for its bytes, those received and those on disk; only the second one is logged.
            counts = options.get("unit") == "B" and options.get("desc") != "Downloading bytes"
            self._progress = DownloadProgress(label, options.get("total")) if counts else None
            super().__init__(*args, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            if self._progress and n:
                self._progress.total = int(self.total or 0)
                self._progress.add(int(n))

    return LoggedProgress


def call_hub(uri: str, call: Callable[[], _Result]) -> _Result:
    """Call the client of the hub, with retries of transient errors; return the result of the call.

    Args:
        uri: the URI for error messages.
        call: the call.

    Raises:
        FetchError: the call failed.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    def attempt() -> _Result:
        try:
            return call()
        except (EntryNotFoundError, HfHubHTTPError, HTTPError) as error:
            raise _to_fetch_error(error, uri) from None

    return retry_transient()(attempt)


def _to_fetch_error(error: Exception, uri: str) -> FetchError:
    """Return an error of the hub's client as a FetchError."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():
            hint = "accept its terms on the hub, and set secretRef to a Secret with a token"
            return FetchError(Reason.TERMS_NOT_ACCEPTED, f"{uri} is gated: {hint}")
        case LocalEntryNotFoundError():
            pass
        case RepositoryNotFoundError() | RevisionNotFoundError() | EntryNotFoundError():
            hint = "check the name; a private repository needs a Secret with a token in secretRef"
            return FetchError(None, f"{uri}: {str(error).splitlines()[0]}; {hint}")
        case HfHubHTTPError():
            status = error.response.status_code if error.response is not None else 0
            if status in (401, 403):
                return FetchError(Reason.ACCESS_DENIED, f"{uri}: the hub refuses the token in secretRef")
            if status == 429:
                hint = "set secretRef to a Secret with a token, or wait"
                return FetchError(Reason.RATE_LIMITED, f"{uri}: the hub limits the request rate: {hint}")
            return FetchError(Reason.SOURCE_UNREACHABLE, f"{uri}: the hub returned {status}")
    return FetchError(Reason.SOURCE_UNREACHABLE, f"{uri}: the hub is unreachable: {error}")
