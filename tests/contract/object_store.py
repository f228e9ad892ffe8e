"""A real S3 server (versitygw), and a TCP relay in front of it that breaks connections."""

import contextlib
import os
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cluster.packages import install_object_store
from finetune.local.ports import find_free_port
from waiting import wait_for

KEY, SECRET = "key-of-the-tests", "secret-of-the-tests"


@dataclass(frozen=True)
class ObjectStore:
    """The running server; a directory below `root` is a bucket, a file in it an object."""

    root: Path
    port: int

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def credentials(self, source: str, *, secret: str = SECRET, endpoint: str = "") -> dict[str, str]:
        """Return the environment variables that a pod gets from a source's Secret."""
        return {
            f"AWS_ACCESS_KEY_ID_{source}": KEY,
            f"AWS_SECRET_ACCESS_KEY_{source}": secret,
            f"AWS_ENDPOINT_URL_{source}": endpoint or self.endpoint,
        }


@contextlib.contextmanager
def object_store(root: Path) -> Iterator[ObjectStore]:
    """Run the server on a directory."""
    program = install_object_store()
    store = ObjectStore(root, find_free_port())
    log = root.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, f"--port=127.0.0.1:{store.port}", f"--access={KEY}", f"--secret={SECRET}", "posix", root],
            env=os.environ,
            stdout=output,
            stderr=output,
        )

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(store.endpoint, timeout=2)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    try:
        wait_for(is_ready, log.read_text)
        yield store
    finally:
        process.terminate()
        process.wait(30)


@dataclass
class Relay:
    """Forwards connections; breaks the first `broken` ones after `after` bytes."""

    target: int
    broken: int
    after: int
    connections: int = 0
    _listener: socket.socket = field(init=False)

    def __enter__(self) -> Self:
        """Start to listen."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def endpoint(self) -> str:
        """URL of the relay."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(
                    target=self._forward, args=(client, self.connections <= self.broken), daemon=True
                ).start()

    def _forward(self, client: socket.socket, is_broken: bool) -> None:
        server = socket.create_connection(("127.0.0.1", self.target))
        threading.Thread(target=_copy, args=(client, server), daemon=True).start()
        _copy(server, client, self.after if is_broken else None)
        for connection in (client, server):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _copy(source: socket.socket, target: socket.socket, limit: int | None = None) -> None:
    with contextlib.suppress(OSError):
        while (limit is None or limit > 0) and (block := source.recv(min(limit or 1 << 16, 1 << 16))):
            target.sendall(block)
            limit = None if limit is None else limit - len(block)
