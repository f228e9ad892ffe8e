"""A TLS proxy between one operator and the API server that can stop the traffic at a chosen request."""

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from cluster.control_plane import Cluster

_CHUNK_BYTES = 1 << 16


class Forwarder:
    """Forwards requests. While it is stopped it keeps all bytes and forwards them when it continues."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.kubeconfig = directory / "kubeconfig"
        self._cluster, self._pki = cluster, cluster.directory / "pki"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._open = asyncio.Event()
        self._is_last: Callable[[bytes], bool] | None = None
        self.has_stopped = threading.Event()
        """Set when traffic has stopped."""
        self.answer = b""
        """First line of the API server's answer to the request at which `stop_at` stopped."""

    def stop(self) -> None:
        """Stop traffic in both directions."""
        self._loop.call_soon_threadsafe(self._open.clear)
        self.has_stopped.set()

    def stop_at(self, is_last: Callable[[bytes], bool]) -> None:
        """Stop traffic before the first request whose first chunk matches."""
        self._is_last = is_last

    def resume(self) -> None:
        """Forward what was kept, then all new traffic."""
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
        server_reader, server_writer = await asyncio.open_connection(address.hostname, address.port, ssl=context)
        try:
            has_chosen_request = asyncio.Event()
            await asyncio.gather(
                self._forward_requests(reader, server_writer, has_chosen_request),
                self._forward_answers(server_reader, writer, has_chosen_request),
            )
        except OSError:
            pass  # one side has closed its connection
        finally:
            for stream in (writer, server_writer):
                stream.close()

    async def _forward_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, has_chosen_request: asyncio.Event
    ) -> None:
        """Forward requests. A connection carries one request at a time, so that each starts a chunk."""
        while chunk := await reader.read(_CHUNK_BYTES):
            if self._is_last and self._is_last(chunk):
                self._is_last = None
                self._open.clear()
                has_chosen_request.set()
                self.has_stopped.set()
            await self._open.wait()
            writer.write(chunk)
            await writer.drain()
        writer.close()

    async def _forward_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, has_chosen_request: asyncio.Event
    ) -> None:
        """Forward answers."""
        while chunk := await reader.read(_CHUNK_BYTES):
            await self._open.wait()
            if has_chosen_request.is_set() and not self.answer:
                self.answer = chunk.partition(b"\r\n")[0]
            writer.write(chunk)
            await writer.drain()
        writer.close()
