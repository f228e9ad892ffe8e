"""Fetches models and data from S3 and whatever speaks its protocol, and stores results there."""

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

from finetune_pod.fetching import FetchError, Progress, retry_transient
from finetune_pod.modelfiles import SMALL_FILES, WEIGHT_FILES, UnsafeModelError, check_safetensors

_CHUNK = 4 << 20
_FILES_AT_ONCE = 4
_LONGEST_WAIT = "30s"
"""Without a byte for so long a connection counts as broken."""


@dataclass(frozen=True, order=True)
class _Object:
    """An object of a bucket; the name is the part of its key that follows the URI's prefix."""

    name: str
    key: str
    size: int
    tag: str | None


def fetch_objects(uri: str, source: Source, directory: Path, is_wanted: Callable[[str], bool]) -> list[Path]:
    """Download an object, or those below a prefix that are wanted; return the files, sorted by name.

    What lies there already, of the right size, stays. The client tries requests again that fail, with backoff;
    a file whose connection breaks goes on where it stood.

    Args:
        uri: `s3://bucket/key` of an object or of a prefix.
        source: whose credentials are sent; without any the request is anonymous.
        directory: where the files go, each below the part of its name that follows the prefix.
        is_wanted: chooses by that part of the name.

    Raises:
        FetchError: there is nothing, it may not be read, or the server cannot be reached.
    """
    return _fetch(parse_uri(uri), source, directory, is_wanted)


def fetch_model(uri: str, directory: Path, *, weights: bool) -> Path:
    """Download a model into a directory of its own below `directory`, and return it.

    Several processes may ask at the same time: the first fetches, the others find it done.

    Raises:
        FetchError: it is not there, may not be read, or the server cannot be reached.
        ModelFilesError: it brings code of its own, or no safetensors.
    """
    target = directory / digest_value(uri)[:16]
    target.mkdir(parents=True, exist_ok=True)
    patterns = (*SMALL_FILES, *(WEIGHT_FILES if weights else ()))
    with (target.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = [one.name for one in _list(_open(parse_uri(uri), MODEL), parse_uri(uri))]
        if any(name.endswith(".py") for name in names):
            raise UnsafeModelError(f"{uri} brings code of its own, which is never run: use a model that needs none")
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
    """Upload files, large ones in parts, over what lies there already.

    Args:
        uri: `s3://bucket/prefix`.
        source: whose credentials are sent.
        contents: what to upload, by the part of its key that follows the prefix and a slash.

    Raises:
        FetchError: the bucket is not there, may not be written, or the server cannot be reached.
    """
    import obstore
    from obstore.exceptions import BaseError

    parsed = parse_uri(uri)
    store = _open(parsed, source)
    sizes = {
        name: content.stat().st_size if isinstance(content, Path) else len(content)
        for name, content in contents.items()
    }
    progress = Progress(uri, sum(sizes.values()))

    def upload(name: str, content: Path | bytes) -> None:
        try:
            obstore.put(store, f"{parsed.path}/{name}".lstrip("/"), content)
        except (BaseError, FileNotFoundError) as error:
            raise _explain(error, parsed) from None

    for name, content in contents.items():
        retry_transient()(upload, name, content)
        progress.add(sizes[name])
    progress.finish("stored")


def _fetch(uri: Uri, source: Source, directory: Path, is_wanted: Callable[[str], bool]) -> list[Path]:
    store = _open(uri, source)
    found = sorted(one for one in _list(store, uri) if is_wanted(one.name))
    progress = Progress(str(uri), sum(one.size for one in found))

    def download(one: _Object) -> Path:
        target = directory / one.name
        if not target.resolve().is_relative_to(directory.resolve()):
            raise FetchError(Reason.INVALID_SPEC, f"{uri}: the name {one.name!r} leaves the directory")
        if not target.is_file() or target.stat().st_size != one.size:
            _download(store, uri, one, target, progress)
        return target

    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        files = list(pool.map(download, found))
    progress.finish()
    return files


def _download(store: Any, uri: Uri, one: _Object, target: Path, progress: Progress) -> None:
    """Write an object, whole or not at all; after a broken connection from where it stood."""
    partial = target.with_name(f"{target.name}.part")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file:
        retry_transient()(_append, store, uri, one, file, progress)
    partial.rename(target)


def _append(store: Any, uri: Uri, one: _Object, file: BinaryIO, progress: Progress) -> None:
    """Write what the file lacks of an object, as long as that is the one that was listed."""
    import obstore
    from obstore.exceptions import BaseError, PreconditionError

    done = file.tell()
    options: Any = {"range": {"offset": done}} if done else {}
    if one.tag:
        options["if_match"] = one.tag
    try:
        for chunk in obstore.get(store, one.key, options=options).stream(min_chunk_size=_CHUNK) if one.size else ():
            progress.add(file.write(chunk))
    except PreconditionError:
        raise FetchError(None, f"{uri}: {one.name} was changed while it was read") from None
    except (BaseError, FileNotFoundError) as error:
        raise _explain(error, uri) from None
    if file.tell() != one.size:
        raise FetchError(Reason.SOURCE_UNREACHABLE, f"{uri}: {one.name} ended after {file.tell()} of {one.size} bytes")


def _list(store: Any, uri: Uri) -> list[_Object]:
    """Return the objects below the URI, or the one that it names."""
    import obstore
    from obstore.exceptions import BaseError

    try:
        found = [meta for page in store.list(uri.path or None) for meta in page]
        if not found and uri.path:
            meta = obstore.head(store, uri.path)
            return [_Object(PurePosixPath(uri.path).name, uri.path, meta["size"], meta["e_tag"])]
    except (BaseError, FileNotFoundError) as error:
        raise _explain(error, uri) from None
    prefix = f"{uri.path}/" if uri.path else ""
    return [_Object(meta["path"].removeprefix(prefix), meta["path"], meta["size"], meta["e_tag"]) for meta in found]


def _open(uri: Uri, source: Source) -> Any:
    """Return the bucket with the source's credentials.

    Without a Secret nothing is signed: the identity of the node or of the pod is nobody's to use.
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
    given: dict[str, Any] = {name: value for name, value in secrets.items() if value}
    return S3Store(
        uri.authority,
        region=read("AWS_REGION") or "us-east-1",
        skip_signature="access_key_id" not in given,
        # The client's own limit of 30 s would hold for a whole file.
        client_options={
            "allow_http": str(given.get("endpoint", "")).startswith("http://"),
            "timeout": "7days",
            "read_timeout": _LONGEST_WAIT,
        },
        **given,
    )


def _explain(error: Exception, uri: Uri) -> FetchError:
    """Turn the server's answer into a reason."""
    text = str(error).splitlines()[0]
    status = re.search(r"status code: (\d{3})", text)
    code = int(status[1]) if status else 0
    if isinstance(error, FileNotFoundError) or code == 404:
        return FetchError(None, f"{uri} is not there: check the bucket, the key and the endpoint")
    if code in (301, 400, 401, 403):
        return FetchError(
            Reason.ACCESS_DENIED, f"{uri}: the server answers {code}: check the keys and the region in secretRef"
        )
    return FetchError(Reason.SOURCE_UNREACHABLE, f"{uri}: the server cannot be reached: {text}")
