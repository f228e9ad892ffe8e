"""Faults between the operator and the API server as data: their kinds, and the points of a run where they strike."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of faults."""

    # the operator's process
    CRASH_BEFORE = "crash-before"
    """Killed before its request reaches the API server."""
    CRASH_AFTER = "crash-after"
    """Killed after the API server did the request, before the response arrives."""
    CRASH_LATE = "crash-late"
    """Killed while its request is in flight; the request arrives when the next process is already running."""
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
    """The API server does the request, but the response is lost."""
    AWAY = "away"
    """The API server is unreachable for some seconds: watches break and connections fail."""
    DOWN = "down"
    """Every request gets 503 for longer than kopf retries."""
    # watches
    GONE = "gone"
    """410 as an event that replaces another event: a deletion falls into the gap before the next list."""
    GONE_HTTP = "gone-http"
    """410 as the answer to a watch."""
    EXPIRED = "expired"
    """410 as an event, and the first continue token of the following lists has expired."""
    DROPPED = "dropped"
    DOUBLED = "doubled"
    REORDERED = "reordered"
    """Sent after the following event."""
    STALE = "stale"
    """An earlier version of an object is sent again, even after its deletion."""
    SILENT = "silent"
    """The watch stays open but sends no more events."""
    CUT = "cut"
    """The watch ends in the middle of a line."""
    TORN = "torn"
    """The connection is reset in the middle of a line."""
    ERROR = "error"
    """An ERROR event with another code than 410."""


CRASHES = (Kind.CRASH_BEFORE, Kind.CRASH_AFTER, Kind.CRASH_LATE)
STATUSES = {
    Kind.CONFLICT: (409, "Conflict"),
    Kind.UNPROCESSABLE: (422, "Invalid"),
    Kind.THROTTLED: (429, "TooManyRequests"),
    Kind.BROKEN: (500, "InternalError"),
    Kind.UNAVAILABLE: (503, "ServiceUnavailable"),
    Kind.GONE_HTTP: (410, "Expired"),
}
"""HTTP status and reason of the error responses."""
_ONLY_WRITES = (Kind.CONFLICT, Kind.UNPROCESSABLE, Kind.LOST, Kind.CRASH_LATE)
"""Kinds for writes only: an API server does not answer reads so, or a lost response of a read changes nothing."""
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
"""Kinds that affect an event."""
_LOSES_EVENTS = (Kind.DROPPED, Kind.SILENT, Kind.REORDERED)
EVENTS = ("ADDED", "MODIFIED", "DELETED")


@dataclass(frozen=True, order=True)
class Point:
    """A request of a run or an event of its watches, from any process."""

    verb: str
    """WRITE, GET, LIST or WATCH for a request; ADDED, MODIFIED or DELETED for an event."""
    resource: str
    """Plural and subresource: `jobs`, `finetunejobs/status`."""
    number: int
    """Number among the points with this verb and resource, from 1."""

    def __str__(self) -> str:
        return f"{self.verb}:{self.resource}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        """Parse the output of `str`."""
        verb, resource, number = text.split(":")
        return cls(verb, resource, int(number))

    @property
    def is_write(self) -> bool:
        """Whether the request changes the cluster."""
        return self.verb == "WRITE"

    @property
    def is_event(self) -> bool:
        """Whether it is an event of a watch."""
        return self.verb in EVENTS


@dataclass(frozen=True)
class Each:
    """Strikes every request once; its retry succeeds."""

    def __str__(self) -> str:
        return "each"


@dataclass(frozen=True)
class Share:
    """Strikes a random share of all requests or events."""

    share: float = 0.2

    def __str__(self) -> str:
        return f"share:{self.share}"


Where = Point | Each | Share


@dataclass(frozen=True)
class Fault:
    """A kind of fault and where it strikes in a run."""

    kind: Kind
    where: Where

    def __str__(self) -> str:
        return f"{self.kind} {self.where}"

    @classmethod
    def parse(cls, kind: str, where: str) -> "Fault":
        """Parse the two words of `str`."""
        if where == "each":
            return cls(Kind(kind), Each())
        if where.startswith("share:"):
            return cls(Kind(kind), Share(float(where.removeprefix("share:"))))
        return cls(Kind(kind), Point.parse(where))

    @property
    def loses_events(self) -> bool:
        """Whether the operator misses changes that only its resync can find."""
        is_silent_watch = self.kind is Kind.TIMEOUT and (
            not isinstance(self.where, Point) or self.where.verb == "WATCH"
        )
        return self.kind in _LOSES_EVENTS or is_silent_watch

    def strikes(self, point: Point, *, is_retry: bool, seed: int) -> bool:
        """Return whether the fault strikes a request or an event.

        Args:
            point: the request or event.
            is_retry: whether it is the retry of one that the fault struck.
            seed: of the random choice.
        """
        if not can_strike(self.kind, point):
            return False
        match self.where:
            case Point():
                return point == self.where
            case Each():
                return not is_retry
            case Share(share):
                return random.Random(f"{seed} {point}").random() < share  # noqa: S311 - reproducible by its seed


def can_strike(kind: Kind, point: Point) -> bool:
    """Return whether a kind of fault can strike a request or event."""
    if kind in WATCHES:
        return point.is_event
    if kind is Kind.GONE_HTTP:
        return point.verb == "WATCH"
    return not point.is_event and kind is not Kind.TWO and (point.is_write or kind not in _ONLY_WRITES)
