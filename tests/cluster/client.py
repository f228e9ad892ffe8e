"""A small asynchronous client of the API server with administrator rights: requests and gapless watches."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakSet

import aiohttp
from cluster.control_plane import Cluster
from waiting import wait_for

Manifest = dict[str, Any]
_READ_BUFFER_BYTES = 1 << 22
"""Must hold the longest line of a watch."""
_WATCH_SECONDS = 86_400


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Client:
    """Sends requests by path. `session` and `headers` are public for callers that forward other requests."""

    def __init__(self, session: aiohttp.ClientSession, server: str, token: str) -> None:
        self.session, self.server = session, server
        self.headers = {"Authorization": f"Bearer {token}"}

    async def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Send a request and return the JSON of the response.

        Raises:
            ApiError: the API server refused the request.
        """
        data = None if body is None else json.dumps(body)
        headers = self.headers | {"Content-Type": content_type}
        async with self.session.request(method, self.server + path, data=data, headers=headers) as response:
            reply = await response.json(content_type=None)
            if not response.ok:
                raise ApiError(response.status, reply.get("message", ""))
            return reply

    async def patch(self, path: str, body: Manifest) -> Any:
        """Apply a merge patch to an object and return the new object."""
        return await self.request("PATCH", path, body, "application/merge-patch+json")

    async def watch(self, path: str) -> AsyncGenerator[tuple[str, Manifest], None]:
        """Yield every existing object as ADDED, then the watch events, for up to a day.

        Raises:
            ApiError: the watch ended, so later events are missed.
        """
        page = await self.request("GET", path)
        for item in page["items"]:
            yield "ADDED", item
        query = f"?watch=true&timeoutSeconds={_WATCH_SECONDS}&resourceVersion={page['metadata']['resourceVersion']}"
        timeout = aiohttp.ClientTimeout(total=None)
        async with self.session.get(self.server + path + query, headers=self.headers, timeout=timeout) as response:
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(event["object"]["code"], event["object"].get("message", ""))
                yield event["type"], event["object"]
        raise ApiError(0, f"the watch of {path} ended")


@asynccontextmanager
async def connect(cluster: Cluster) -> AsyncIterator[Client]:
    """Connect as the administrator; close every connection at the end."""
    sockets: WeakSet[socket.socket] = WeakSet()

    def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        new = socket.socket(*address[:3])
        sockets.add(new)
        return new

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    token = (cluster.directory / "pki" / "admin.token").read_text()
    connector = aiohttp.TCPConnector(limit=0, ssl=context, socket_factory=open_socket)
    try:
        async with aiohttp.ClientSession(connector=connector, read_bufsize=_READ_BUFFER_BYTES) as session:
            yield Client(session, cluster.server, token)
    finally:
        # aiohttp drops connections of cancelled requests during the TLS shutdown; Python warns if the loop ends then.
        await asyncio.to_thread(
            wait_for, lambda: all(connection.fileno() < 0 for connection in sockets), "connections to close"
        )
