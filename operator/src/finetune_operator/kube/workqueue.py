"""A queue of keys with client-go's semantics: a key is worked on once at a time, and never forgotten.

A key that is added while it is worked on is worked on again afterwards. Failures come back after a
growing, jittered delay of their own. Keys of objects that are new go first, but for every sixteenth turn: whoever makes
many of them does not hold up what is under way.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable

from finetune_operator.kube.kinds import Key

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 30.0
_TURNS = 16


class WorkQueue:
    """Keys that wait, keys that are worked on, and keys that come back later. One event loop only."""

    def __init__(self, is_new: Callable[[Key], bool]) -> None:
        """Begin closed and empty; `is_new` tells which keys go first."""
        self.is_open = False
        """Whether keys are let in."""
        self._is_new = is_new
        self._new: OrderedDict[Key, None] = OrderedDict()
        self._turn = 0
        self._waiting: OrderedDict[Key, None] = OrderedDict()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._available = asyncio.Event()

    def __len__(self) -> int:
        """Return how many keys wait to be worked on now."""
        return len(self._new) + len(self._waiting)

    @property
    def has_new(self) -> bool:
        """Whether a new object waits to be worked on now."""
        return bool(self._new)

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
        if self._is_new(key):
            self._waiting.pop(key, None)
            self._new[key] = None
        elif key not in self._new:
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
        while not self:
            self._available.clear()
            await self._available.wait()
        self._turn += 1
        is_turn_of_others = self._waiting and not self._turn % _TURNS
        keys = self._new if self._new and not is_turn_of_others else self._waiting
        key, _ = keys.popitem(last=False)
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
