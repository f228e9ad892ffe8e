"""Fetches files over https, only from hosts that the administrator lists."""

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from finetune_api.conditions import Reason
from finetune_api.hosts import explain_refusal, find_host_entry
from finetune_pod.fetching import DownloadProgress, FetchError, retry_transient

_MAX_REDIRECTS = 5
_TIMEOUT_SECONDS = 30
"""Time to connect, and between two bytes."""
_TRANSIENT_STATUSES = (408, 425, 429)


def fetch_file(uri: str, token: str | None, hosts: Sequence[str], target: Path) -> None:
    """Download a file, and resume after a broken connection. The target exists only once it is complete.

    Args:
        uri: `https://host/path`.
        token: bearer token for that host, never sent to another host that it redirects to.
        hosts: the administrator's list, which must contain every host of a redirect.
        target: the file to write.

    Raises:
        FetchError: the file does not exist, access is denied, or a host is not listed or unreachable.
    """
    import httpx

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    with httpx.Client(timeout=_TIMEOUT_SECONDS) as client, partial.open("wb") as file:
        download = _Download(client, uri, token, hosts, file)
        retry_transient()(download.resume)
    partial.rename(target)


class _Download:
    """The download of one file, over several connections if they break."""

    def __init__(self, client: Any, uri: str, token: str | None, hosts: Sequence[str], file: BinaryIO) -> None:
        self._client, self._uri, self._hosts, self._file = client, uri, hosts, file
        # A compressed transfer could not be resumed at a position of the file.
        self._headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._version = ""
        self._progress: DownloadProgress | None = None

    def resume(self) -> None:
        """Download the missing part of the file; all of it if the server does not support that or the file changed."""
        done = self._file.tell()
        headers = self._headers
        if done and self._version:
            headers = headers | {"Range": f"bytes={done}-", "If-Range": self._version}
        with self._open(headers) as response:
            self._check_status(response.status_code)
            if response.status_code != 206:
                self._file.seek(0)
                self._file.truncate()
                self._progress = None
            self._version = _read_version(response.headers)
            length = response.headers.get("Content-Length", "")
            total = self._file.tell() + int(length) if length.isdecimal() else None
            self._progress = self._progress or DownloadProgress(self._uri, total)
            for block in response.iter_raw():
                self._progress.add(self._file.write(block))
        self._progress.finish()

    @contextmanager
    def _open(self, headers: dict[str, str]) -> Iterator[Any]:
        """Send the request, and check each host of a redirect before sending anything to it."""
        import httpx

        request = self._client.build_request("GET", self._uri, headers=headers)
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                _check_host(self._uri, request.url, self._hosts)
                response = self._client.send(request, stream=True)
                if not response.has_redirect_location:
                    break
                response.close()
                # httpx removes the token if the host differs.
                request = response.next_request
            else:
                raise FetchError(None, f"{self._uri}: more than {_MAX_REDIRECTS} redirects")
            try:
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            text = str(error) or type(error).__name__
            raise FetchError(Reason.SOURCE_UNREACHABLE, f"{self._uri} is unreachable: {text}") from None

    def _check_status(self, status: int) -> None:
        if status in (200, 206):
            return
        if status in (401, 403):
            hint = "check the Secret in secretRef"
            raise FetchError(Reason.ACCESS_DENIED, f"{self._uri}: the server returned {status}: {hint}")
        if status in _TRANSIENT_STATUSES or status >= 500:
            reason = Reason.RATE_LIMITED if status == 429 else Reason.SOURCE_UNREACHABLE
            raise FetchError(reason, f"{self._uri}: the server returned {status}")
        raise FetchError(None, f"{self._uri} does not exist: the server returned {status}")


def _read_version(headers: Any) -> str:
    """Return the version of the file for If-Range, which does not accept a weak ETag."""
    tag = str(headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(headers.get("Last-Modified", ""))


def _check_host(uri: str, url: Any, hosts: Sequence[str]) -> None:
    """Raise a FetchError unless the administrator lists the host.

    A host that is listed by its own name may have any address, also inside the cluster. Names below a listed domain may
    be registered by others, so these hosts must have public addresses. A name whose address changes between this check
    and the connection still needs a certificate for that name.
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
        addresses = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FetchError(Reason.SOURCE_UNREACHABLE, f"{uri}: the host {host} cannot be resolved: {error}") from None
    private = [address for *_, (address, *_) in addresses if not ipaddress.ip_address(str(address)).is_global]
    if private:
        raise FetchError(
            Reason.ACCESS_DENIED,
            f"{uri}: {host} has the address {private[0]}, which is not public: only a host that sources.httpsHosts"
            " lists by its own name may have a private address",
        )
