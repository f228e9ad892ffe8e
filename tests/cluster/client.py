"""A small asynchronous client of the API server, as the administrator: requests, and watches that miss nothing."""

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
_WHOLE_LINES = 1 << 22
_A_DAY = 86_400


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Client:
    """Requests by path; `session` and `headers` are there for whoever passes on requests of others."""

    def __init__(self, session: aiohttp.ClientSession, server: str, token: str) -> None:
        self.session, self.server = session, server
        self.headers = {"Authorization": f"Bearer {token}"}

    async def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Return the answer's JSON.

        Raises:
            ApiError: the API server refused it.
        """
        data = None if body is None else json.dumps(body)
        headers = self.headers | {"Content-Type": content_type}
        async with self.session.request(method, self.server + path, data=data, headers=headers) as response:
            answer = await response.json(content_type=None)
            if not response.ok:
                raise ApiError(response.status, answer.get("message", ""))
            return answer

    async def patch(self, path: str, body: Manifest) -> Any:
        """Merge a part into an object."""
        return await self.request("PATCH", path, body, "application/merge-patch+json")

    async def watch(self, path: str) -> AsyncGenerator[tuple[str, Manifest], None]:
        """Yield every object as ADDED, and then what happens, for a day.

        Raises:
            ApiError: the watch broke, so that something may have been missed.
        """
        page = await self.request("GET", path)
        for item in page["items"]:
            yield "ADDED", item
        query = f"?watch=true&timeoutSeconds={_A_DAY}&resourceVersion={page['metadata']['resourceVersion']}"
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
    """Connect as the administrator; afterwards no connection is left."""
    sockets: WeakSet[socket.socket] = WeakSet()

    def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        opened = socket.socket(*address[:3])
        sockets.add(opened)
        return opened

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    token = (cluster.directory / "pki" / "admin.token").read_text()
    connector = aiohttp.TCPConnector(limit=0, ssl=context, socket_factory=open_socket)
    try:
        async with aiohttp.ClientSession(connector=connector, read_bufsize=_WHOLE_LINES) as session:
            yield Client(session, cluster.server, token)
    finally:
        # aiohttp forgets the connections of cancelled requests while TLS says goodbye; a loop that ends then warns.
        await asyncio.to_thread(wait_for, lambda: all(one.fileno() < 0 for one in sockets), "connections to close")
