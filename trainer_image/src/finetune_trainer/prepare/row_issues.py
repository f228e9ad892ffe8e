"""Errors and warnings about rows: counted by kind, the first rows of each kind listed."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_LISTED = 100
"""Rows listed for each kind; all rows are counted."""

_JSON_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}
_MAX_QUOTED = 40
"""Characters of a value in a message."""


def describe_type(value: Any) -> str:
    """Return the JSON type of a value, with its article."""
    return "null" if value is None else _JSON_TYPES.get(type(value), f"a {type(value).__name__}")


def quote(value: Any) -> str:
    """Return a value for a message: as JSON, truncated."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


class RowError(Exception):
    """A row that cannot be used. The message names the field and says what to do."""

    def __init__(self, kind: str, message: str) -> None:
        """Store both; `kind` is one word that groups errors in the report."""
        super().__init__(message)
        self.kind = kind


class RowWarning(NamedTuple):
    """Something that the author of a row should know; the row is used nevertheless."""

    kind: str
    message: str


@dataclass
class RowIssues:
    """The errors, or the warnings, of one source."""

    counts: Counter[str] = field(default_factory=Counter)
    """The number of rows, by kind."""
    listed: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Location and message of the first rows, by kind."""

    def add(self, location: str, kind: str, message: str) -> None:
        """Count a row, and list it if there is space."""
        self.counts[kind] += 1
        listed = self.listed.setdefault(kind, [])
        if len(listed) < MAX_LISTED:
            listed.append((location, message))

    def to_list(self) -> list[dict[str, str]]:
        """Return the listed rows as JSON values for the report."""
        return [
            {"kind": kind, "place": location, "message": message}
            for kind, listed in self.listed.items()
            for location, message in listed
        ]
