"""Asks a server of OpenAI's API from many clients at a time, and measures each answer."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True)
class Load:
    """What some requests took."""

    latencies: list[float]
    """Seconds of each answer."""
    seconds: float
    """From the first request to the last answer."""

    @property
    def p50(self) -> float:
        """The median of the answers' seconds."""
        return statistics.median(self.latencies)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def ask_many(url: str, models: list[str], key: str, count: int, clients: int, tokens: int) -> Load:
    """Send requests in turn to some models, from some clients that wait for their answers.

    Args:
        url: of the server.
        models: the names to ask for.
        key: the API key.
        count: how many requests.
        clients: how many are on their way at a time.
        tokens: of each answer.
    """
    return asyncio.run(_ask_many(url, models, key, count, clients, tokens))


async def _ask_many(url: str, models: list[str], key: str, count: int, clients: int, tokens: int) -> Load:
    numbers = iter(range(count))
    latencies: list[float] = []

    async def run_client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            began = time.perf_counter()
            async with session.post(
                f"{url}/v1/completions", json=body(models[number % len(models)], number, tokens)
            ) as reply:
                answer = await reply.json()
            if reply.status != 200 or answer["usage"]["completion_tokens"] != tokens:
                raise SystemExit(f"{reply.status}: {json.dumps(answer)[:500]}")
            latencies.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        began = time.perf_counter()
        await asyncio.gather(*(run_client(session) for _ in range(clients)))
        return Load(latencies, time.perf_counter() - began)


def body(model: str, number: int, tokens: int) -> dict[str, object]:
    """Return a request whose answer has exactly so many tokens."""
    return {
        "model": model,
        "prompt": f"question {number}: what does thing {number} cost?",
        "max_tokens": tokens,
        "min_tokens": tokens,
        "temperature": 0,
    }


class Gaps:
    """Streams one answer after another in the background, and notes when each of their pieces came."""

    def __init__(self, url: str, model: str, key: str, tokens: int) -> None:
        """Ask that model for answers of so many tokens."""
        self._url, self._model, self._key, self._tokens = url, model, key, tokens
        self.times: list[float] = []
        """When each piece came, by the clock of time.perf_counter."""
        self._is_over = False

    async def run(self) -> None:
        """Stream until `stop`."""
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self._key}"}) as session:
            number = 0
            while not self._is_over:
                number += 1
                request = body(self._model, number, self._tokens) | {"stream": True}
                async with session.post(f"{self._url}/v1/completions", json=request) as reply:
                    async for _ in reply.content.iter_any():
                        self.times.append(time.perf_counter())

    def stop(self) -> None:
        """Let the answer that is on its way be the last one."""
        self._is_over = True

    def between(self, begin: float, end: float) -> list[float]:
        """Return the seconds between pieces, of those that ended within a time or reach over its end."""
        pairs = zip(self.times, self.times[1:], strict=False)
        return [later - earlier for earlier, later in pairs if later > begin and earlier < end]
