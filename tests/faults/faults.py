"""What can go wrong between the operator and the API server, as data, and where it does in a run."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The faults."""

    # the operator's process
    CRASH_BEFORE = "crash-before"
    """Killed before its request reaches the API server."""
    CRASH_AFTER = "crash-after"
    """Killed when the API server has done what it asked, before it hears of it."""
    CRASH_LATE = "crash-late"
    """Killed while its request is under way: it arrives when the next process works already."""
    TWO = "two"
    """Two operators at once."""
    # answers
    CONFLICT = "409"
    UNPROCESSABLE = "422"
    THROTTLED = "429"
    BROKEN = "500"
    UNAVAILABLE = "503"
    RESET = "reset"
    TIMEOUT = "timeout"
    LOST = "lost"
    """The API server does what was asked, and nobody hears of it."""
    AWAY = "away"
    """No API server for some seconds: watches break, nothing connects."""
    DOWN = "down"
    """Every request is answered with 503 for longer than kopf tries by itself."""
    # watches
    GONE = "gone"
    """410 as an event, in place of one that is never told: a deletion falls into the gap before the next list."""
    GONE_HTTP = "gone-http"
    """410 as the answer to a watch."""
    EXPIRED = "expired"
    """410 as an event, and the first token to continue the lists that follow has expired."""
    DROPPED = "dropped"
    DOUBLED = "doubled"
    REORDERED = "reordered"
    """Told after the event that follows."""
    STALE = "stale"
    """An object's earlier version is told again, after a deletion too."""
    SILENT = "silent"
    """The watch stays open, and nothing is told any more."""
    CUT = "cut"
    """The watch ends in the middle of a line."""
    TORN = "torn"
    """The connection is torn in the middle of a line."""
    ERROR = "error"
    """An ERROR event that is no 410."""


CRASHES = (Kind.CRASH_BEFORE, Kind.CRASH_AFTER, Kind.CRASH_LATE)
STATUSES = {
    Kind.CONFLICT: (409, "Conflict"),
    Kind.UNPROCESSABLE: (422, "Invalid"),
    Kind.THROTTLED: (429, "TooManyRequests"),
    Kind.BROKEN: (500, "InternalError"),
    Kind.UNAVAILABLE: (503, "ServiceUnavailable"),
    Kind.GONE_HTTP: (410, "Expired"),
}
"""HTTP status and reason of the answers that say what is wrong."""
_ONLY_WRITES = (Kind.CONFLICT, Kind.UNPROCESSABLE, Kind.LOST, Kind.CRASH_LATE)
"""An API server never answers a read so, or a read that nobody hears of is one that was not answered."""
ANSWERS = (
    Kind.CONFLICT,
    Kind.UNPROCESSABLE,
    Kind.THROTTLED,
    Kind.BROKEN,
    Kind.UNAVAILABLE,
    Kind.RESET,
    Kind.TIMEOUT,
    Kind.LOST,
)
WATCHES = (
    Kind.GONE,
    Kind.EXPIRED,
    Kind.DROPPED,
    Kind.DOUBLED,
    Kind.REORDERED,
    Kind.STALE,
    Kind.SILENT,
    Kind.CUT,
    Kind.TORN,
    Kind.ERROR,
)
"""What befalls an event."""
_LOSES_EVENTS = (Kind.DROPPED, Kind.SILENT, Kind.REORDERED)
EVENTS = ("ADDED", "MODIFIED", "DELETED")


@dataclass(frozen=True, order=True)
class Point:
    """One request of a run, or one event of its watches, whichever process it belongs to."""

    verb: str
    """WRITE, GET, LIST or WATCH, or what an event says: ADDED, MODIFIED, DELETED."""
    resource: str
    """Plural and subresource: `jobs`, `finetunejobs/status`."""
    number: int
    """Which of those it is, from 1."""

    def __str__(self) -> str:
        return f"{self.verb}:{self.resource}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        """Read what `str` wrote."""
        verb, resource, number = text.split(":")
        return cls(verb, resource, int(number))

    @property
    def is_write(self) -> bool:
        """Whether the cluster is another one afterwards."""
        return self.verb == "WRITE"

    @property
    def is_event(self) -> bool:
        """Whether it is told by a watch."""
        return self.verb in EVENTS


@dataclass(frozen=True)
class Each:
    """Every request is met, and goes through when it is tried again."""

    def __str__(self) -> str:
        return "each"


@dataclass(frozen=True)
class Share:
    """A part of all requests, or events, by chance."""

    share: float = 0.2

    def __str__(self) -> str:
        return f"share:{self.share}"


Where = Point | Each | Share


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a run, and where."""

    kind: Kind
    where: Where

    def __str__(self) -> str:
        return f"{self.kind} {self.where}"

    @classmethod
    def parse(cls, kind: str, where: str) -> "Fault":
        """Read what `str` wrote, as two words."""
        if where == "each":
            return cls(Kind(kind), Each())
        if where.startswith("share:"):
            return cls(Kind(kind), Share(float(where.removeprefix("share:"))))
        return cls(Kind(kind), Point.parse(where))

    @property
    def loses_events(self) -> bool:
        """Whether something happens that the operator is never told, so that only its resync finds it."""
        is_deaf = self.kind is Kind.TIMEOUT and (not isinstance(self.where, Point) or self.where.verb == "WATCH")
        return self.kind in _LOSES_EVENTS or is_deaf

    def strikes(self, point: Point, *, is_again: bool, seed: int) -> bool:
        """Tell whether a request or an event meets the fault.

        Args:
            point: the request or event.
            is_again: whether it is tried again after it was met.
            seed: makes chance come again.
        """
        if not can_befall(self.kind, point):
            return False
        match self.where:
            case Point():
                return point == self.where
            case Each():
                return not is_again
            case Share(share):
                return random.Random(f"{seed} {point}").random() < share  # noqa: S311 - must come again


def can_befall(kind: Kind, point: Point) -> bool:
    """Tell whether a fault can happen at a request or event at all."""
    if kind in WATCHES:
        return point.is_event
    if kind is Kind.GONE_HTTP:
        return point.verb == "WATCH"
    return not point.is_event and kind is not Kind.TWO and (point.is_write or kind not in _ONLY_WRITES)
