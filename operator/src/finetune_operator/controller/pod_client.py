"""Reads from pods over HTTP: the progress of a training, and the models that a server has loaded.

Pods are untrusted: responses are limited in length and parsed strictly, and an invalid one counts as none.
"""

import math
import re

import aiohttp
from finetune_api.contract.routes import LOADED_PATH, MAX_LOADED_BYTES, LoadedReport, parse_loaded
from finetune_api.jobstatus import TrainingProgress
from finetune_api.meta import METRICS_PORT, SERVER_PORT

from finetune_operator.state.conditions import format_seconds

_TIMEOUT = aiohttp.ClientTimeout(total=2)
_HEADERS = {"Accept-Encoding": "identity"}
_MAX_METRICS = 1 << 18
_SAMPLE = re.compile(r"^finetune_train_([a-z_]{1,32}) ([0-9.eE+-]{1,32})$", re.ASCII | re.MULTILINE)
"""A gauge of the trainer; NaN does not match."""


def open_session() -> aiohttp.ClientSession:
    """Return the session for requests to pods: without decompression and cookies."""
    return aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


class PodClient:
    """A client for the HTTP ports of pods."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """Use a session, which the caller closes."""
        self._session = session

    async def read_progress(self, address: str) -> TrainingProgress | None:
        """Return the progress of the training in a pod; None without a valid response."""
        text = await self._get(f"http://{_host(address)}:{METRICS_PORT}/metrics", _MAX_METRICS)
        return parse_progress(text) if text else None

    async def read_loaded(self, address: str) -> LoadedReport | None:
        """Return what a server's pod has loaded; None without a valid response."""
        text = await self._get(f"http://{_host(address)}:{SERVER_PORT}{LOADED_PATH}", MAX_LOADED_BYTES)
        return parse_loaded(text) if text else None

    async def _get(self, url: str, max_bytes: int) -> str | None:
        """Return a response body; None if there is none or it is longer than `max_bytes`."""
        try:
            async with self._session.get(url, timeout=_TIMEOUT, headers=_HEADERS, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                data = b""
                while len(data) <= max_bytes and (chunk := await response.content.read(max_bytes + 1 - len(data))):
                    data += chunk
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return None
        return data.decode(errors="replace") if len(data) <= max_bytes else None


def parse_progress(text: str) -> TrainingProgress | None:
    """Parse the trainer's metrics; None if they are incomplete or contradictory."""
    try:
        values = {name: float(value) for name, value in _SAMPLE.findall(text)}
    except ValueError:
        return None
    step, steps = values.get("step"), values.get("steps")
    if step is None or steps is None or not 0 <= step <= steps <= 1e9 or steps < 1:
        return None
    percentage = int(100 * step / steps)
    remaining = values.get("remaining_seconds", math.nan)
    seconds = int(remaining) if 0 <= remaining < 1e9 else None
    loss = values.get("loss", math.nan)
    return TrainingProgress(
        percentage=percentage,
        step=int(step),
        steps=int(steps),
        remaining_seconds=seconds,
        loss=round(loss, 4) if math.isfinite(loss) else None,
        text=f"{percentage}%" + (f" {format_seconds(seconds)} left" if seconds is not None else ""),
    )


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
