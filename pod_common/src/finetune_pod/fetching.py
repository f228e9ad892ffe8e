"""What all downloads and uploads have in common: how they fail, and the lines that say how far they are."""

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any

from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import ExitCode, find_failure

if TYPE_CHECKING:
    from tenacity import Retrying

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 5.0
_ATTEMPTS = 6
FIRST_WAIT = 1.0
"""Seconds before the second attempt; each wait is twice the one before."""


class FetchError(Exception):
    """A source that cannot be fetched, or a target that cannot be written."""

    def __init__(self, reason: Reason | None, message: str) -> None:
        """Store both.

        Args:
            reason: for the status; None where the source does not exist, since only the caller knows whether it is a
                model, a dataset or an output.
            message: begins with the URI.
        """
        super().__init__(message)
        self.reason = reason

    @property
    def is_transient(self) -> bool:
        """Whether a retry can help."""
        return self.reason is not None and find_failure(self.reason).exit_code is ExitCode.TRANSIENT


def retry_transient() -> "Retrying":
    """Return tenacity's loop that calls again after a FetchError that is worth it: six times in about a minute."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

    def tell(state: Any) -> None:
        _LOG.warning("%s; again in %.0f s", state.outcome.exception(), state.upcoming_sleep)

    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.is_transient),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=FIRST_WAIT, max=30, jitter=FIRST_WAIT),
        before_sleep=tell,
        reraise=True,
    )


class Progress:
    """Logs every few seconds how far a download is; several threads may share it."""

    def __init__(self, what: str, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin a download of so many bytes in all; None where nobody knows."""
        self.total, self._what, self._clock = total, what, clock
        self._done = 0
        self._began = self._said = clock()
        self._lock = Lock()

    def add(self, count: int) -> None:
        """Count bytes that have come, and say so when it is time."""
        with self._lock:
            self._done += count
            now = self._clock()
            if now - self._said < _SECONDS_BETWEEN_LINES:
                return
            self._said = now
            _LOG.info("%s: %s", self._what, describe_progress(self._done, self.total, now - self._began))

    def finish(self, verb: str = "fetched") -> None:
        """Say how much it was in all."""
        seconds = self._clock() - self._began
        _LOG.info("%s: %s, %s in %.0f s", self._what, verb, format_bytes(self._done), seconds)


def describe_progress(done: int, total: int | None, seconds: float) -> str:
    """Return bytes, percentage where the whole is known, and rate as people write them."""
    rate = f"{format_bytes(done / max(seconds, 0.001))}/s"
    if not total:
        return f"{format_bytes(done)}, {rate}"
    return f"{format_bytes(done)} of {format_bytes(total)} ({100 * done // total} %), {rate}"


def format_bytes(count: float) -> str:
    """Return a size with a decimal unit: `512 B`, `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
