"""Takes over what a pod says of itself: capped, strictly parsed, and fit to be written down and shown. Pure."""

import json
import math
from typing import Any, TypeVar

from finetune_api.model import ApiModel

_Model = TypeVar("_Model", bound=ApiModel)

_MOST = 2**53 - 1
"""Largest whole number that every reader of JSON reads as it was written."""


def parse_untrusted(model: type[_Model], text: str, longest: int) -> _Model | None:
    """Return what a text in JSON says; None where it is longer than so many bytes, or says nothing that fits."""
    try:
        if len(text) > longest or len(text.encode()) > longest:
            return None
        return model.model_validate(_clean(json.loads(text)))
    except (ValueError, RecursionError):
        return None


def make_printable(text: str) -> str:
    """Return a text with a space for everything that a terminal would act upon instead of showing it."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _clean(value: Any) -> Any:
    """Return JSON with printable texts.

    Raises:
        ValueError: it holds a number that is none, or is too large for the API server.
    """
    match value:
        case str():
            return make_printable(value)
        case dict():
            return {make_printable(key): _clean(part) for key, part in value.items()}
        case list():
            return [_clean(part) for part in value]
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} is no number")
        case int() if abs(value) > _MOST:
            raise ValueError("a whole number is too large")
    return value
