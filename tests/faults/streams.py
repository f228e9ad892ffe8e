"""A watch as the operator sees it: the API server's events with injected faults."""

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web
from faults.faults import Kind

_NO_OBJECT = (b'{"type":"BOOKMARK"', b'{"type":"ERROR"')
"""Lines without an object of the watch: bookmarks and errors."""


class Stream:
    """Sends events, line by line."""

    def __init__(self, response: web.StreamResponse, register: Callable[[str], Kind | None]) -> None:
        self._response, self._register = response, register
        self._last_lines: dict[str, bytes] = {}
        """The last event of each object, by uid."""
        self._held: bytes | None = None
        self._is_silent = False
        self.has_gap = False
        """Whether it ended with a 410."""
        self.is_torn = False
        """Whether to reset its connection."""

    async def send(self, line: bytes) -> bool:
        """Send a line or its faulty replacement; return whether that ends the stream."""
        if self._is_silent:
            return False
        if line.startswith(_NO_OBJECT):
            await self._response.write(line)
            return False
        event = json.loads(line)
        kind = self._register(event["type"])
        uid = event["object"]["metadata"]["uid"]
        earlier, self._last_lines[uid] = self._last_lines.get(uid), line
        match kind:
            case Kind.DROPPED:
                pass
            case Kind.DOUBLED:
                await self._write(line, line)
            case Kind.REORDERED if self._held is None:
                self._held = line
            case Kind.STALE if earlier is not None:
                await self._write(line, earlier)
            case Kind.SILENT:
                self._is_silent = True
            case Kind.GONE | Kind.EXPIRED | Kind.ERROR | Kind.CUT | Kind.TORN:
                await self._break(kind, line)
                return True
            case _:
                await self._write(line)
        return False

    async def _break(self, kind: Kind, line: bytes) -> None:
        """Send an error in place of an event, or half of its line."""
        self.has_gap, self.is_torn = kind in (Kind.GONE, Kind.EXPIRED), kind is Kind.TORN
        if self.has_gap:
            line = _error(410, "Expired")
        elif kind is Kind.ERROR:
            line = _error(500, "InternalError")
        else:
            line = line[: len(line) // 2]
        await self._response.write(line)

    async def _write(self, *lines: bytes) -> None:
        held, self._held = self._held, None
        await self._response.write(b"".join([*lines, held or b""]))

    async def aclose(self) -> None:
        """End the response, unless its connection is reset."""
        if not self.is_torn:
            await self._response.write_eof()


def _error(code: int, reason: str) -> bytes:
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    event = {"type": "ERROR", "object": status | {"reason": reason, "message": f"{reason} (injected by the proxy)"}}
    return json.dumps(event).encode() + b"\n"
