"""Waits for conditions, never for seconds."""

import time
from collections.abc import Callable


def wait_for(is_true: Callable[[], bool], what: Callable[[], str] | str, seconds: float = 60) -> None:
    """Return once the condition holds.

    Raises:
        AssertionError: it did not hold in time; `what` says what was awaited, or what is there instead.
    """
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what if isinstance(what, str) else what()}")
        time.sleep(0.3)
