"""A queue of keys with client-go's semantics: a key is worked on once at a time, and never forgotten.

A key that is added while it is worked on is worked on again afterwards. Failures come back after a
growing, jittered delay of their own.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Iterable

from finetune_operator.kinds import Key

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 60.0


class WorkQueue:
    """Keys that wait, keys that are worked on, and keys that come back later. One event loop only."""

    def __init__(self) -> None:
        """Begin closed and empty."""
        self.is_open = False
        """Whether keys are let in."""
        self._waiting: OrderedDict[Key, None] = OrderedDict()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._available = asyncio.Event()

    def __len__(self) -> int:
        """Return how many keys wait to be worked on now."""
        return len(self._waiting)

    def open(self, keys: Iterable[Key]) -> None:
        """Let keys in from now on, and these at once: before, when nobody works, they would only pile up."""
        self.is_open = True
        for key in keys:
            self.add(key)

    def add(self, key: Key) -> None:
        """Ask for a key to be worked on."""
        if not self.is_open:
            return
        if key in self._working:
            self._again.add(key)
            return
        self._waiting[key] = None
        self._available.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Ask for a key after a while; an earlier wish stands."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._fire, key)

    async def get(self) -> Key:
        """Wait for a key and take it; it must be given back with `done` or `failed`."""
        while not self._waiting:
            self._available.clear()
            await self._available.wait()
        key, _ = self._waiting.popitem(last=False)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """Give a key back after success."""
        self._failures.pop(key, None)
        self._give_back(key)

    def failed(self, key: Key) -> float:
        """Give a key back after a failure; return the seconds after which it comes again."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(_FIRST_DELAY * 2.0 ** min(failures, 16), _LONGEST_DELAY) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        self._give_back(key)
        self.add_after(key, delay)
        return delay

    def _give_back(self, key: Key) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
