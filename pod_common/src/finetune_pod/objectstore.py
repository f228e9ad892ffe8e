"""Downloads models and data from S3-compatible object stores, and uploads results."""

import fcntl
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from finetune_api.conditions import Reason
from finetune_api.contract.mounts import MODEL, Source, credential_variable
from finetune_api.digest import digest_value
from finetune_api.uris import Uri, parse_uri

from finetune_pod.fetching import DownloadProgress, FetchError, retry_transient
from finetune_pod.modelfiles import SMALL_FILES, WEIGHT_FILES, UnsafeModelError, check_safetensors

_CHUNK = 4 << 20
_FILES_AT_ONCE = 4
_READ_TIMEOUT = "30s"
"""A connection that delivers no byte for this long is broken."""


@dataclass(frozen=True, order=True)
class _Object:
    """An object of a bucket; the name is the part of its key after the URI's prefix."""

    name: str
    key: str
    size: int
    tag: str | None


def fetch_objects(uri: str, source: Source, directory: Path, is_selected: Callable[[str], bool]) -> list[Path]:
    """Download an object, or selected objects below a prefix; return the files, sorted by name.

    Files that exist with the right size are kept. The client retries failed requests with backoff. After a broken
    connection, a download resumes where it stopped.

    Args:
        uri: `s3://bucket/key` of an object or of a prefix.
        source: whose credentials are sent; without credentials, requests are anonymous.
        directory: for the files; the path of each is the part of its key after the prefix.
        is_selected: gets that part of the key.

    Raises:
        FetchError: there is no object, access is denied, or the server cannot be reached.
    """
    return _fetch(parse_uri(uri), source, directory, is_selected)


def fetch_model(uri: str, directory: Path, *, weights: bool) -> Path:
    """Download a model into its own subdirectory of `directory`, and return the subdirectory.

    If several processes call this at the same time, the first downloads and the others wait for it.

    Raises:
        FetchError: the model does not exist, access is denied, or the server cannot be reached.
        ModelFilesError: it contains its own code, or no safetensors.
    """
    target = directory / digest_value(uri)[:16]
    target.mkdir(parents=True, exist_ok=True)
    patterns = (*SMALL_FILES, *(WEIGHT_FILES if weights else ()))
    with (target.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = [item.name for item in _list(_open(parse_uri(uri), MODEL), parse_uri(uri))]
        if any(name.endswith(".py") for name in names):
            raise UnsafeModelError(f"{uri} contains its own code, which is never run: use a model without code")
        if "config.json" in names:
            check_safetensors(names, uri)
        _fetch(
            parse_uri(uri),
            MODEL,
            target,
            lambda name: "/" not in name and any(fnmatch(name, pattern) for pattern in patterns),
        )
    return target


def store_objects(uri: str, source: Source, contents: Mapping[str, Path | bytes]) -> None:
    """Upload files, large ones in parts; existing objects are overwritten.

    Args:
        uri: `s3://bucket/prefix`.
        source: whose credentials are sent.
        contents: files or bytes, by the part of the key after the prefix and a slash.

    Raises:
        FetchError: the bucket does not exist, access is denied, or the server cannot be reached.
    """
    import obstore
    from obstore.exceptions import BaseError

    parsed = parse_uri(uri)
    store = _open(parsed, source)
    sizes = {
        name: content.stat().st_size if isinstance(content, Path) else len(content)
        for name, content in contents.items()
    }
    progress = DownloadProgress(uri, sum(sizes.values()))

    def upload(name: str, content: Path | bytes) -> None:
        try:
            obstore.put(store, f"{parsed.path}/{name}".lstrip("/"), content)
        except (BaseError, FileNotFoundError) as error:
            raise _explain(error, parsed) from None

    for name, content in contents.items():
        retry_transient()(upload, name, content)
        progress.add(sizes[name])
    progress.finish("stored")


def _fetch(uri: Uri, source: Source, directory: Path, is_selected: Callable[[str], bool]) -> list[Path]:
    store = _open(uri, source)
    objects = sorted(item for item in _list(store, uri) if is_selected(item.name))
    progress = DownloadProgress(str(uri), sum(item.size for item in objects))

    def download(item: _Object) -> Path:
        target = directory / item.name
        if not target.resolve().is_relative_to(directory.resolve()):
            raise FetchError(Reason.INVALID_SPEC, f"{uri}: the key {item.name!r} points outside the prefix: rename it")
        if not target.is_file() or target.stat().st_size != item.size:
            _download(store, uri, item, target, progress)
        return target

    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        files = list(pool.map(download, objects))
    progress.finish()
    return files


def _download(store: Any, uri: Uri, item: _Object, target: Path, progress: DownloadProgress) -> None:
    """Download an object; resume after a broken connection. The file appears only when it is complete."""
    partial = target.with_name(f"{target.name}.part")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file:
        retry_transient()(_append, store, uri, item, file, progress)
    partial.rename(target)


def _append(store: Any, uri: Uri, item: _Object, file: BinaryIO, progress: DownloadProgress) -> None:
    """Append the rest of an object to the file, unless the object has changed since it was listed."""
    import obstore
    from obstore.exceptions import BaseError, PreconditionError

    done = file.tell()
    options: Any = {"range": {"offset": done}} if done else {}
    if item.tag:
        options["if_match"] = item.tag
    try:
        for chunk in obstore.get(store, item.key, options=options).stream(min_chunk_size=_CHUNK) if item.size else ():
            progress.add(file.write(chunk))
    except PreconditionError:
        raise FetchError(None, f"{uri}: {item.name} changed during the download: start again") from None
    except (BaseError, FileNotFoundError) as error:
        raise _explain(error, uri) from None
    if file.tell() != item.size:
        raise FetchError(
            Reason.SOURCE_UNREACHABLE, f"{uri}: {item.name} ended after {file.tell()} of {item.size} bytes"
        )


def _list(store: Any, uri: Uri) -> list[_Object]:
    """Return the objects below the URI, or the object at the URI."""
    import obstore
    from obstore.exceptions import BaseError

    try:
        objects = [meta for page in store.list(uri.path or None) for meta in page]
        if not objects and uri.path:
            meta = obstore.head(store, uri.path)
            return [_Object(PurePosixPath(uri.path).name, uri.path, meta["size"], meta["e_tag"])]
    except (BaseError, FileNotFoundError) as error:
        raise _explain(error, uri) from None
    prefix = f"{uri.path}/" if uri.path else ""
    return [_Object(meta["path"].removeprefix(prefix), meta["path"], meta["size"], meta["e_tag"]) for meta in objects]


def _open(uri: Uri, source: Source) -> Any:
    """Return the bucket with the source's credentials.

    Without a Secret, requests are not signed: a job must not use the identity of the node or of the pod.
    """
    from obstore.store import S3Store

    def read(key: str) -> str | None:
        return os.environ.get(credential_variable(source, key))

    secrets = {
        "access_key_id": read("AWS_ACCESS_KEY_ID"),
        "secret_access_key": read("AWS_SECRET_ACCESS_KEY"),
        "session_token": read("AWS_SESSION_TOKEN"),
        "endpoint": read("AWS_ENDPOINT_URL"),
    }
    credentials: dict[str, Any] = {name: value for name, value in secrets.items() if value}
    return S3Store(
        uri.authority,
        region=read("AWS_REGION") or "us-east-1",
        skip_signature="access_key_id" not in credentials,
        # The client's default timeout of 30 s would apply to a whole file.
        client_options={
            "allow_http": str(credentials.get("endpoint", "")).startswith("http://"),
            "timeout": "7days",
            "read_timeout": _READ_TIMEOUT,
        },
        **credentials,
    )


def _explain(error: Exception, uri: Uri) -> FetchError:
    """Return the error with the reason that follows from the server's response."""
    text = str(error).splitlines()[0]
    status = re.search(r"status code: (\d{3})", text)
    code = int(status[1]) if status else 0
    if isinstance(error, FileNotFoundError) or code == 404:
        return FetchError(None, f"{uri} does not exist: check the bucket, the key and the endpoint")
    if code in (301, 400, 401, 403):
        return FetchError(
            Reason.ACCESS_DENIED, f"{uri}: the server responds with {code}: check the keys and the region in secretRef"
        )
    return FetchError(Reason.SOURCE_UNREACHABLE, f"{uri}: the server cannot be reached: {text}")
