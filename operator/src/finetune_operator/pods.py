"""Asks pods over HTTP: how far a training is, and what a server has loaded. A pod is never believed blindly.

What a pod answers is capped in length and parsed strictly; an answer that does not fit is no answer.
"""

import math
from itertools import islice

import aiohttp
from finetune_api.jobstatus import Progress
from finetune_api.meta import METRICS_PORT, SERVER_PORT
from finetune_api.routes import LOADED_PATH, LoadedReport
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from finetune_operator.status import format_seconds

_TIMEOUT = aiohttp.ClientTimeout(total=2)
_LONGEST = 1 << 20
_MOST_FAMILIES = 200


class Pods:
    """A client for the pods' own ports."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """Use a session; whoever made it closes it."""
        self._session = session

    async def read_progress(self, address: str) -> Progress | None:
        """Return how far the training in a pod is, or None."""
        text = await self._get(f"http://{_host(address)}:{METRICS_PORT}/metrics")
        return parse_progress(text) if text else None

    async def read_loaded(self, address: str) -> LoadedReport | None:
        """Return what a server's pod has loaded, or None."""
        text = await self._get(f"http://{_host(address)}:{SERVER_PORT}{LOADED_PATH}")
        try:
            return LoadedReport.model_validate_json(text) if text else None
        except ValidationError:
            return None

    async def _get(self, url: str) -> str | None:
        try:
            async with self._session.get(url, timeout=_TIMEOUT, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                data = await response.content.read(_LONGEST)
                while len(data) < _LONGEST and (more := await response.content.read(_LONGEST - len(data))):
                    data += more
        except (TimeoutError, aiohttp.ClientError, OSError):
            return None
        return data.decode(errors="replace")


def parse_progress(text: str) -> Progress | None:
    """Read the trainer's metrics; None where they are not all there or make no sense."""
    values: dict[str, float] = {}
    try:
        for family in islice(text_string_to_metric_families(text), _MOST_FAMILIES):
            for sample in family.samples:
                values[sample.name] = sample.value
    except ValueError:
        return None
    step, steps = values.get("finetune_train_step"), values.get("finetune_train_steps")
    if step is None or steps is None or not 0 <= step <= steps <= 1e9 or steps < 1:
        return None
    percentage = int(100 * step / steps)
    remaining = values.get("finetune_train_remaining_seconds", math.nan)
    seconds = int(remaining) if 0 <= remaining < 1e9 else None
    loss = values.get("finetune_train_loss", math.nan)
    return Progress(
        percentage=percentage,
        step=int(step),
        steps=int(steps),
        remaining_seconds=seconds,
        loss=round(loss, 4) if math.isfinite(loss) else None,
        text=f"{percentage}%" + (f" {format_seconds(seconds)} left" if seconds is not None else ""),
    )


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
