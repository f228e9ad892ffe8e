"""Waits for a condition instead of a fixed time."""

import time
from collections.abc import Callable


def wait_for(is_true: Callable[[], bool], what: Callable[[], str] | str, seconds: float = 60) -> None:
    """Poll until the condition is true.

    Raises:
        AssertionError: it is still false after `seconds`; `what` says what was expected, or what is there instead.
    """
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError(
                f"timed out after {seconds:.0f} s waiting for {what if isinstance(what, str) else what()}"
            )
        time.sleep(0.3)
