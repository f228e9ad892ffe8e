"""What the operator's log must not hold: an error that no test asked for. Every tier that runs an operator reads it."""

import json
from typing import Any


def unexpected_errors(log: str) -> list[dict[str, Any] | str]:
    """Return the lines of a log at level `error`, and those that are not JSON, such as a traceback.

    Refusals of the API server that come again are warnings; an error is something that nobody foresaw.
    """
    wrong: list[dict[str, Any] | str] = []
    for text in filter(None, log.split("\n")):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            wrong.append(text)
            continue
        if not isinstance(line, dict) or line.get("level") in ("error", "critical"):
            wrong.append(line)
    return wrong


def check_log(log: str) -> None:
    """Fail where a log holds an unexpected error.

    Raises:
        AssertionError: it does, or it is empty: an operator says at least that it started.
    """
    assert log.strip(), "the operator's log is empty"
    wrong = unexpected_errors(log)
    assert not wrong, wrong
