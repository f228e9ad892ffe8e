"""What is found in the rows of a data source: mistakes and warnings, counted by kind, the first of each listed."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LISTED = 100
"""Rows of a kind that are listed; all are counted."""


_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
_LONGEST_SHOWN = 40


def kind_of(value: Any) -> str:
    """Say what a value of a row is, as JSON has it."""
    return "null" if value is None else _KINDS.get(type(value), f"a {type(value).__name__}")


def show(value: Any) -> str:
    """Return a value of a row as a message shows it: as JSON, and short."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


class RowError(Exception):
    """A row that cannot be used: the sort of mistake, and a message that names the field and what to do."""

    def __init__(self, kind: str, message: str) -> None:
        """Keep both; `kind` is one word and the same for all mistakes of its sort."""
        super().__init__(message)
        self.kind = kind


class Warned(NamedTuple):
    """Something about a row that its author should know, and that stops nothing."""

    kind: str
    message: str


@dataclass
class Findings:
    """Mistakes, or warnings, of one source."""

    counts: Counter[str] = field(default_factory=Counter)
    """How many rows have each kind."""
    listed: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Place and message of the first rows, by kind."""

    def add(self, place: str, kind: str, message: str) -> None:
        """Note a row."""
        self.counts[kind] += 1
        listed = self.listed.setdefault(kind, [])
        if len(listed) < LISTED:
            listed.append((place, message))

    def to_list(self) -> list[dict[str, str]]:
        """Return what is listed, for the report."""
        return [
            {"kind": kind, "place": place, "message": message}
            for kind, listed in self.listed.items()
            for place, message in listed
        ]
