"""Parses untrusted JSON from pods: limited in size, strictly validated, and safe to store and print. No I/O."""

import json
import math
from typing import Any, TypeVar

from finetune_api.model import ApiModel

_Model = TypeVar("_Model", bound=ApiModel)

_MAX_INTEGER = 2**53 - 1
"""Largest integer that every JSON parser reads exactly."""


def parse_untrusted(model: type[_Model], text: str, max_bytes: int) -> _Model | None:
    """Return the model that a JSON text holds; None if it is longer than `max_bytes` or invalid."""
    try:
        if len(text) > max_bytes or len(text.encode()) > max_bytes:
            return None
        return model.model_validate(_clean(json.loads(text)))
    except (ValueError, RecursionError):
        return None


def make_printable(text: str) -> str:
    """Return a text with every non-printable character, such as a terminal escape, replaced by a space."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _clean(value: Any) -> Any:
    """Return a JSON value with printable strings.

    Raises:
        ValueError: it holds NaN, an infinity, or an integer that is too large for the API server.
    """
    match value:
        case str():
            return make_printable(value)
        case dict():
            return {make_printable(key): _clean(part) for key, part in value.items()}
        case list():
            return [_clean(part) for part in value]
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        case int() if abs(value) > _MAX_INTEGER:
            raise ValueError(f"{value} is larger than {_MAX_INTEGER}")
    return value
