"""A work queue with client-go's semantics: one worker at a time processes a key, and no added key is lost.

A key that is added while a worker processes it is queued again afterwards. A failed key returns after a jittered delay
that grows with its own failures. Keys of new objects go first, except on every sixteenth turn: a user who creates many
objects does not delay the existing ones.
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
    """Keys that are ready, in processing, or delayed. For one event loop only."""

    def __init__(self, is_new: Callable[[Key], bool]) -> None:
        """Start closed and empty; keys for which `is_new` is true go first."""
        self.is_open = False
        """Whether keys can be added."""
        self._is_new = is_new
        self._new: OrderedDict[Key, None] = OrderedDict()
        self._turn = 0
        self._ready: OrderedDict[Key, None] = OrderedDict()
        self._processing: set[Key] = set()
        self._dirty: set[Key] = set()
        """Keys that were added while in processing."""
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._available = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of keys that are ready."""
        return len(self._new) + len(self._ready)

    @property
    def has_new(self) -> bool:
        """Whether the key of a new object is ready."""
        return bool(self._new)

    def open(self, keys: Iterable[Key]) -> None:
        """Accept keys from now on, and add these; while no worker runs, keys would only pile up."""
        self.is_open = True
        for key in keys:
            self.add(key)

    def add(self, key: Key) -> None:
        """Queue a key; a closed queue ignores it."""
        if not self.is_open:
            return
        if key in self._processing:
            self._dirty.add(key)
            return
        if self._is_new(key):
            self._ready.pop(key, None)
            self._new[key] = None
        elif key not in self._new:
            self._ready[key] = None
        self._available.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Queue a key after a delay; of several delays of one key the earliest counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._fire, key)

    async def get(self) -> Key:
        """Wait for a key and take it; the worker must return it with `done` or `requeue`."""
        while not self:
            self._available.clear()
            await self._available.wait()
        self._turn += 1
        is_turn_of_others = self._ready and not self._turn % _TURNS
        keys = self._new if self._new and not is_turn_of_others else self._ready
        key, _ = keys.popitem(last=False)
        self._processing.add(key)
        return key

    def done(self, key: Key) -> None:
        """Return a key after success."""
        self._failures.pop(key, None)
        self._finish(key)

    def requeue(self, key: Key) -> float:
        """Return a key after a failure; return the seconds until it is ready again."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(_FIRST_DELAY * 2.0 ** min(failures, 16), _LONGEST_DELAY) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        self._finish(key)
        self.add_after(key, delay)
        return delay

    def _finish(self, key: Key) -> None:
        self._processing.discard(key)
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
