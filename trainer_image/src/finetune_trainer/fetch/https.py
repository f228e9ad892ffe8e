"""Fetches a file over https from hosts that the administrator lists, and from nowhere else."""

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from finetune_api.conditions import Reason
from finetune_api.hosts import explain_refusal, find_host_entry
from finetune_pod.fetching import DownloadProgress, FetchError, retry_transient

_MOST_REDIRECTS = 5
_SECONDS_WITHOUT_A_BYTE = 30
_TRANSIENT = (408, 425, 429)


def fetch_file(uri: str, token: str | None, hosts: Sequence[str], target: Path) -> None:
    """Download a file, whole or not at all; after a broken connection from where it stood.

    Args:
        uri: `https://host/path`.
        token: sent as a bearer token to that host, and to none that it redirects to.
        hosts: the administrator's list; every host on the way must be in it.
        target: the file to write.

    Raises:
        FetchError: it is not there, may not be read, or cannot be reached.
    """
    import httpx

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    with httpx.Client(timeout=_SECONDS_WITHOUT_A_BYTE) as client, partial.open("wb") as file:
        download = _Download(client, uri, token, hosts, file)
        retry_transient()(download.go_on)
    partial.rename(target)


class _Download:
    """One file, over several connections where they break."""

    def __init__(self, client: Any, uri: str, token: str | None, hosts: Sequence[str], file: BinaryIO) -> None:
        self._client, self._uri, self._hosts, self._file = client, uri, hosts, file
        # What a transfer is compressed with would get in the way of going on.
        self._headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._version = ""
        self._progress: DownloadProgress | None = None

    def go_on(self) -> None:
        """Write what the file lacks; all of it where the server cannot go on, or has another file by now."""
        done = self._file.tell()
        headers = self._headers
        if done and self._version:
            headers = headers | {"Range": f"bytes={done}-", "If-Range": self._version}
        with self._answer(headers) as response:
            self._check_status(response.status_code)
            if response.status_code != 206:
                self._file.seek(0)
                self._file.truncate()
                self._progress = None
            self._version = _version_of(response.headers)
            length = response.headers.get("Content-Length", "")
            total = self._file.tell() + int(length) if length.isdecimal() else None
            self._progress = self._progress or DownloadProgress(self._uri, total)
            for block in response.iter_raw():
                self._progress.add(self._file.write(block))
        self._progress.finish()

    @contextmanager
    def _answer(self, headers: dict[str, str]) -> Iterator[Any]:
        """Ask, and follow redirects by hand: each host is checked before anything is sent to it."""
        import httpx

        request = self._client.build_request("GET", self._uri, headers=headers)
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                _check_host(self._uri, request.url, self._hosts)
                response = self._client.send(request, stream=True)
                if not response.has_redirect_location:
                    break
                response.close()
                # Without the token where the host is another.
                request = response.next_request
            else:
                raise FetchError(None, f"{self._uri}: more than {_MOST_REDIRECTS} redirects")
            try:
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            text = str(error) or type(error).__name__
            raise FetchError(Reason.SOURCE_UNREACHABLE, f"{self._uri} cannot be read for now: {text}") from None

    def _check_status(self, status: int) -> None:
        if status in (200, 206):
            return
        if status in (401, 403):
            hint = "check the Secret in secretRef"
            raise FetchError(Reason.ACCESS_DENIED, f"{self._uri}: the server answers {status}: {hint}")
        if status in _TRANSIENT or status >= 500:
            reason = Reason.RATE_LIMITED if status == 429 else Reason.SOURCE_UNREACHABLE
            raise FetchError(reason, f"{self._uri}: the server answers {status}")
        raise FetchError(None, f"{self._uri} is not there: the server answers {status}")


def _version_of(headers: Any) -> str:
    """Return what tells this version of the file from others, for If-Range; a weak ETag does not."""
    tag = str(headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(headers.get("Last-Modified", ""))


def _check_host(uri: str, url: Any, hosts: Sequence[str]) -> None:
    """Refuse what the administrator does not list.

    A host that is listed by its own name may be anywhere, also inside the cluster. Below a listed domain others may
    give out names, so there only public addresses are reached; a name that moves between this check and the
    connection still needs a certificate that names it.
    """
    host = url.host if url.port is None else f"{url.host}:{url.port}"
    if url.scheme != "https":
        raise FetchError(Reason.ACCESS_DENIED, f"{uri} redirects to {url.scheme}://{host}: only https is followed")
    entry = find_host_entry(host, hosts)
    if entry is None:
        raise FetchError(Reason.ACCESS_DENIED, explain_refusal(uri, host, hosts))
    if entry == host:
        return
    try:
        found = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FetchError(Reason.SOURCE_UNREACHABLE, f"{uri}: {host} is not found: {error}") from None
    private = [address for *_, (address, *_) in found if not ipaddress.ip_address(str(address)).is_global]
    if private:
        raise FetchError(
            Reason.ACCESS_DENIED,
            f"{uri}: {host} is at {private[0]}, which is no public address: only a host that sources.httpsHosts"
            " lists by its own name may be private",
        )
