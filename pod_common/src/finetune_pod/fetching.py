"""Errors, retries and progress logs of all downloads and uploads."""

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
_LOG_INTERVAL_SECONDS = 5.0
_ATTEMPTS = 6
FIRST_WAIT = 1.0
"""Seconds before the second attempt; each wait is twice the previous one."""


class FetchError(Exception):
    """A source that cannot be fetched, or a target that cannot be written."""

    def __init__(self, reason: Reason | None, message: str) -> None:
        """Store both.

        Args:
            reason: for the status; None if the source does not exist, since only the caller knows whether it is a
                model, a dataset or an output.
            message: starts with the URI.
        """
        super().__init__(message)
        self.reason = reason

    @property
    def is_transient(self) -> bool:
        """Whether a retry can help."""
        return self.reason is not None and find_failure(self.reason).exit_code is ExitCode.TRANSIENT


def retry_transient() -> "Retrying":
    """Return a tenacity loop that retries transient FetchErrors: six attempts in about a minute."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

    def log_retry(state: Any) -> None:
        _LOG.warning("%s; retrying in %.0f s", state.outcome.exception(), state.upcoming_sleep)

    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.is_transient),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=FIRST_WAIT, max=30, jitter=FIRST_WAIT),
        before_sleep=log_retry,
        reraise=True,
    )


class DownloadProgress:
    """Logs the progress of a download or upload every few seconds. Thread-safe."""

    def __init__(self, name: str, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with 0 bytes.

        Args:
            name: starts each log line.
            total: bytes in total; None if unknown.
            clock: returns seconds.
        """
        self.total, self._name, self._clock = total, name, clock
        self._done = 0
        self._start = self._last_log = clock()
        self._lock = Lock()

    def add(self, count: int) -> None:
        """Add transferred bytes; log the progress if the last log line is old enough."""
        with self._lock:
            self._done += count
            now = self._clock()
            if now - self._last_log < _LOG_INTERVAL_SECONDS:
                return
            self._last_log = now
            _LOG.info("%s: %s", self._name, describe_progress(self._done, self.total, now - self._start))

    def finish(self, verb: str = "fetched") -> None:
        """Log the total."""
        seconds = self._clock() - self._start
        _LOG.info("%s: %s, %s in %.0f s", self._name, verb, format_bytes(self._done), seconds)


def describe_progress(done: int, total: int | None, seconds: float) -> str:
    """Return bytes, percentage (if the total is known) and rate in readable units."""
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
