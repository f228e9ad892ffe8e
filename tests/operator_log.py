"""Finds unexpected errors in the operator's log. Every tier that runs an operator uses it."""

import json
from typing import Any


def unexpected_errors(log: str) -> list[dict[str, Any] | str]:
    """Return the log lines at level `error` or `critical`, and those that are not JSON, such as a traceback.

    Requests that the operator retries are warnings; an error is a bug.
    """
    unexpected: list[dict[str, Any] | str] = []
    for text in filter(None, log.split("\n")):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            unexpected.append(text)
            continue
        if not isinstance(line, dict) or line.get("level") in ("error", "critical"):
            unexpected.append(line)
    return unexpected


def check_log(log: str) -> None:
    """Fail if the log has an unexpected error.

    Raises:
        AssertionError: it has one, or it is empty; an operator logs at least its start.
    """
    assert log.strip(), "the operator's log is empty"
    errors = unexpected_errors(log)
    assert not errors, errors
