"""Stands between one operator and the API server, and can stop the traffic at a request of its choice."""

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from cluster.control_plane import Cluster

_LARGEST = 1 << 16


class Forwarder:
    """Forwards requests, or keeps all that comes until it goes on; what it keeps is lost to nobody."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.kubeconfig = directory / "kubeconfig"
        self._cluster, self._pki = cluster, cluster.directory / "pki"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._open = asyncio.Event()
        self._is_last: Callable[[bytes], bool] | None = None
        self.has_stopped = threading.Event()
        """Set when nothing passes any more."""
        self.answer = b""
        """The first line of what the API server said to the request at which `stop_at` stopped."""

    def stop(self) -> None:
        """Let nothing pass, in either direction."""
        self._loop.call_soon_threadsafe(self._open.clear)
        self.has_stopped.set()

    def stop_at(self, is_last: Callable[[bytes], bool]) -> None:
        """Let nothing pass from the first request on of whose beginning this is true, and not that request either."""
        self._is_last = is_last

    def go_on(self) -> None:
        """Let everything pass, and what was kept first."""
        self._loop.call_soon_threadsafe(self._open.set)

    def __enter__(self) -> Self:
        self._open.set()
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        config = json.loads(self._cluster.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        self.kubeconfig.write_text(json.dumps(config))
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pki / "apiserver.crt", self._pki / "apiserver.key")
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", ssl=context)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        context = ssl.create_default_context(cafile=str(self._pki / "apiserver.crt"))
        address = urlsplit(self._cluster.server)
        there_reader, there_writer = await asyncio.open_connection(address.hostname, address.port, ssl=context)
        try:
            is_chosen = asyncio.Event()
            await asyncio.gather(
                self._ask(reader, there_writer, is_chosen), self._tell(there_reader, writer, is_chosen)
            )
        except OSError:
            pass  # one side has gone
        finally:
            for one in (writer, there_writer):
                one.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_chosen: asyncio.Event) -> None:
        """Pass requests on; one connection carries one after the other, so that each begins a chunk."""
        while chunk := await reader.read(_LARGEST):
            if self._is_last and self._is_last(chunk):
                self._is_last = None
                self._open.clear()
                is_chosen.set()
                self.has_stopped.set()
            await self._open.wait()
            writer.write(chunk)
            await writer.drain()
        writer.close()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_chosen: asyncio.Event) -> None:
        """Pass answers on."""
        while chunk := await reader.read(_LARGEST):
            await self._open.wait()
            if is_chosen.is_set() and not self.answer:
                self.answer = chunk.partition(b"\r\n")[0]
            writer.write(chunk)
            await writer.drain()
        writer.close()
