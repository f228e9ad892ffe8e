"""Load generator for an OpenAI-compatible server: many concurrent clients, with the latency of each request."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True)
class Load:
    """Times of a number of requests."""

    latencies: list[float]
    """Seconds of each request."""
    seconds: float
    """From the first request to the last response."""

    @property
    def p50(self) -> float:
        """Median latency in seconds."""
        return statistics.median(self.latencies)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


def send_requests(url: str, models: list[str], key: str, count: int, clients: int, tokens: int) -> Load:
    """Send completion requests from concurrent clients, to each of the models in turn.

    Args:
        url: base URL of the server.
        models: model names.
        key: API key.
        count: number of requests.
        clients: number of concurrent requests.
        tokens: length of each completion.
    """
    return asyncio.run(_send_requests(url, models, key, count, clients, tokens))


async def _send_requests(url: str, models: list[str], key: str, count: int, clients: int, tokens: int) -> Load:
    numbers = iter(range(count))
    latencies: list[float] = []

    async def run_client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            started = time.perf_counter()
            async with session.post(
                f"{url}/v1/completions", json=build_body(models[number % len(models)], number, tokens)
            ) as response:
                completion = await response.json()
            if response.status != 200 or completion["usage"]["completion_tokens"] != tokens:
                raise SystemExit(f"{response.status}: {json.dumps(completion)[:500]}")
            latencies.append(time.perf_counter() - started)

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        started = time.perf_counter()
        await asyncio.gather(*(run_client(session) for _ in range(clients)))
        return Load(latencies, time.perf_counter() - started)


def build_body(model: str, number: int, tokens: int) -> dict[str, object]:
    """Return the body of a request whose completion has exactly `tokens` tokens."""
    return {
        "model": model,
        "prompt": f"question {number}: what does thing {number} cost?",
        "max_tokens": tokens,
        "min_tokens": tokens,
        "temperature": 0,
    }


class ChunkTimes:
    """Streams one completion after another in the background, and records when each chunk arrives."""

    def __init__(self, url: str, model: str, key: str, tokens: int) -> None:
        """Stream completions of `tokens` tokens from the model."""
        self._url, self._model, self._key, self._tokens = url, model, key, tokens
        self.times: list[float] = []
        """Arrival times of the chunks, as of time.perf_counter."""
        self._is_stopped = False

    async def run(self) -> None:
        """Stream until `stop`."""
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self._key}"}) as session:
            number = 0
            while not self._is_stopped:
                number += 1
                request = build_body(self._model, number, self._tokens) | {"stream": True}
                async with session.post(f"{self._url}/v1/completions", json=request) as response:
                    async for _ in response.content.iter_any():
                        self.times.append(time.perf_counter())

    def stop(self) -> None:
        """Stop after the current completion."""
        self._is_stopped = True

    def gaps_between(self, start: float, end: float) -> list[float]:
        """Return the seconds between consecutive chunks, for all gaps that overlap the period from `start` to `end`."""
        pairs = zip(self.times, self.times[1:], strict=False)
        return [later - earlier for earlier, later in pairs if later > start and earlier < end]
