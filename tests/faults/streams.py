"""One watch as the operator sees it: the API server's events, with what befalls them on the way."""

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web
from faults.faults import Kind

_NO_OBJECT = (b'{"type":"BOOKMARK"', b'{"type":"ERROR"')
"""Lines that tell of the watch itself: how far it is, or that the API server ends it."""


class Stream:
    """Tells events, line by line."""

    def __init__(self, response: web.StreamResponse, meet: Callable[[str], Kind | None]) -> None:
        self._response, self._meet = response, meet
        self._told: dict[str, bytes] = {}
        """By uid what was told last of an object."""
        self._held: bytes | None = None
        self._is_silent = False
        self.has_gap = False
        """Whether it ended with a 410."""
        self.is_torn = False
        """Whether its connection is to be torn."""

    async def tell(self, line: bytes) -> bool:
        """Pass on a line, or what becomes of it; return whether that ends the stream."""
        if self._is_silent:
            return False
        if line.startswith(_NO_OBJECT):
            await self._response.write(line)
            return False
        event = json.loads(line)
        kind = self._meet(event["type"])
        uid = event["object"]["metadata"]["uid"]
        earlier, self._told[uid] = self._told.get(uid), line
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
        """End in place of an event, or in the middle of it."""
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
        """End the answer properly, unless it is to be torn."""
        if not self.is_torn:
            await self._response.write_eof()


def _error(code: int, reason: str) -> bytes:
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    event = {"type": "ERROR", "object": status | {"reason": reason, "message": f"{reason}, says the proxy"}}
    return json.dumps(event).encode() + b"\n"
