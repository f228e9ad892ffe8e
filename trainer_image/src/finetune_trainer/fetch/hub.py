"""Fetches models and data from the hub through its own client."""

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


def fetch_hub_data(source: DataSource, role: Source, is_wanted: Callable[[str], bool]) -> list[Path]:
    """Download the files of a dataset that lie at or below the URI's path and are wanted, all of one commit.

    Raises:
        FetchError: it is not there, may not be read, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi, hf_hub_download

    uri = parse_uri(source.uri)
    token = os.environ.get(credential_variable(role, "HF_TOKEN")) or False

    def fetch() -> list[Path]:
        info = HfApi().dataset_info(uri.authority, revision=source.revision, token=token)
        names = sorted(one.rfilename for one in info.siblings or ())
        if uri.path and is_wanted(uri.path):
            names = [uri.path]
        return [
            Path(
                hf_hub_download(
                    uri.authority,
                    name,
                    repo_type="dataset",
                    revision=info.sha,
                    token=token,
                    tqdm_class=_follow(f"{source.uri}: {name}"),
                )
            )
            for name in names
            if is_wanted(name) and (not uri.path or name == uri.path or name.startswith(f"{uri.path}/"))
        ]

    return asking_hub(source.uri, fetch)


def fetch_hub_model(model: Model, *, weights: bool) -> Path:
    """Download a model, all of one commit; without weights only configuration and tokenizer.

    Raises:
        FetchError: it is not there, may not be read, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    def fetch() -> Path:
        return Path(
            snapshot_download(
                parse_uri(model.uri).authority,
                revision=model.revision,
                allow_patterns=[*SMALL_FILES, *(WEIGHT_FILES if weights else ())],
                token=os.environ.get(credential_variable(MODEL, "HF_TOKEN")) or False,
                tqdm_class=_follow(model.uri),
            )
        )

    return asking_hub(model.uri, fetch)


def _follow(what: str) -> Any:
    """Return a class of progress bars that log lines instead: a pod has no terminal."""
    from tqdm.auto import tqdm

    class Lines(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            # The bytes of a snapshot have two bars: what came over the network, and what is on the disk.
            counts = options.get("unit") == "B" and options.get("desc") != "Downloading bytes"
            self._progress = DownloadProgress(what, options.get("total")) if counts else None
            super().__init__(*args, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            if self._progress and n:
                self._progress.total = int(self.total or 0)
                self._progress.add(int(n))

    return Lines


def asking_hub(uri: str, ask: Callable[[], _Result]) -> _Result:
    """Return what a call of the hub's client returns; it is tried again where that is worth it.

    Raises:
        FetchError: what the hub answered.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    def try_once() -> _Result:
        try:
            return ask()
        except (EntryNotFoundError, HfHubHTTPError, HTTPError) as error:
            raise _explain(error, uri) from None

    return retry_transient()(try_once)


def _explain(error: Exception, uri: str) -> FetchError:
    """Return what an answer of the hub means."""
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
            hint = "accept its terms on the hub, and give a token's Secret in secretRef"
            return FetchError(Reason.TERMS_NOT_ACCEPTED, f"{uri} is gated: {hint}")
        case LocalEntryNotFoundError():
            pass
        case RepositoryNotFoundError() | RevisionNotFoundError() | EntryNotFoundError():
            hint = "check the name; a private one needs a token's Secret in secretRef"
            return FetchError(None, f"{uri}: {str(error).splitlines()[0]}; {hint}")
        case HfHubHTTPError():
            status = error.response.status_code if error.response is not None else 0
            if status in (401, 403):
                return FetchError(Reason.ACCESS_DENIED, f"{uri}: the hub refuses the token in secretRef")
            if status == 429:
                hint = "give a token's Secret in secretRef, or wait"
                return FetchError(Reason.RATE_LIMITED, f"{uri}: the hub limits the rate: {hint}")
            return FetchError(Reason.SOURCE_UNREACHABLE, f"{uri}: the hub answers {status}")
    return FetchError(Reason.SOURCE_UNREACHABLE, f"{uri}: the hub cannot be reached: {error}")
