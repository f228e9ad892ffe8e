"""Chooses the faults of each lifecycle from the requests and events of its fault-free run. No I/O."""

from collections.abc import Iterator
from itertools import cycle, islice

from faults.faults import ANSWERS, WATCHES, Each, Fault, Kind, Point, Share, can_strike
from faults.lifecycles import LIFECYCLES

_EVERYWHERE = "serve"
"""The lifecycle with faults in reads too: every operator reads all objects at its start, so one lifecycle is enough."""


def plan_all(points: dict[str, list[Point]], seed: int) -> list[tuple[str, Fault]]:
    """Return the runs; they take about half an hour.

    Args:
        points: requests and events of the fault-free run, by lifecycle.
        seed: selects the kind of fault for each point, so that all kinds occur. An odd seed covers every second point,
            an even seed the others.
    """
    answers, watches = (cycle(rotate(kinds, seed)) for kinds in (ANSWERS, WATCHES))
    runs: list[tuple[str, Fault]] = []
    for lifecycle, all_points in points.items():
        shared = points.get(LIFECYCLES[lifecycle].starts_as, [])
        selected = sorted(set(all_points) - set(shared))[seed % 2 :: 2]
        faults = [*plan_processes(lifecycle, selected), *plan_mixed(selected)]
        for point in selected:
            if point.is_write or (lifecycle == _EVERYWHERE and not point.is_event):
                faults.append(Fault(_next(answers, point), point))
            elif point.is_event and point.number % 3 == seed % 3:
                faults.append(Fault(_next(watches, point), point))
        runs += [(lifecycle, fault) for fault in faults]
    return runs


def plan_processes(lifecycle: str, points: list[Point]) -> Iterator[Fault]:
    """Yield a crash at each request, two operators at once, and an unreachable API server."""
    for point in points:
        if point.is_write:
            yield Fault(Kind.CRASH_BEFORE, point)
            yield Fault(Kind.CRASH_AFTER, point)
            if point.resource != "events":
                # A late event does no harm.
                yield Fault(Kind.CRASH_LATE, point)
        elif lifecycle == _EVERYWHERE and not point.is_event:
            yield Fault(Kind.CRASH_BEFORE, point)
    yield Fault(Kind.TWO, Each())
    writes = [point for point in points if point.is_write]
    for kind in (Kind.AWAY, Kind.DOWN):
        yield Fault(kind, writes[len(writes) // 2])


def plan_mixed(points: list[Point]) -> Iterator[Fault]:
    """Yield every kind for a share of all requests and events, and each bad answer once for every request."""
    for kind in (*ANSWERS, *WATCHES, Kind.GONE_HTTP):
        yield Fault(kind, Share())
    for kind in ANSWERS:
        # Every request would time out after ten seconds: too slow; timeouts strike single points instead.
        if kind is not Kind.TIMEOUT:
            yield Fault(kind, Each())


def rotate(kinds: tuple[Kind, ...], by: int) -> list[Kind]:
    """Return the kinds, rotated by a number."""
    return list(islice(cycle(kinds), by % len(kinds), by % len(kinds) + len(kinds)))


def _next(kinds: Iterator[Kind], point: Point) -> Kind:
    """Return the next kind that can strike a point."""
    return next(kind for kind in kinds if can_strike(kind, point))
