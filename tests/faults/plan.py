"""Which faults befall which lifecycle, given what its fault-free run asked. Pure."""

from collections.abc import Iterator
from itertools import cycle, islice

from faults.faults import ANSWERS, WATCHES, Each, Fault, Kind, Point, Share, can_befall
from faults.lifecycles import LIFECYCLES

_EVERYWHERE = "serve"
"""The lifecycle whose reads are met too: those of the others are the same, since a start reads everything."""


def plan_all(points: dict[str, list[Point]], seed: int) -> list[tuple[str, Fault]]:
    """Return the runs, about half an hour of them.

    Args:
        points: by lifecycle what the fault-free run asked and was told.
        seed: which kind of bad answer or event meets which point; over all points every kind comes up. An odd one takes
            every second point, an even one the others.
    """
    answers, watches = (cycle(rotate(kinds, seed)) for kinds in (ANSWERS, WATCHES))
    runs: list[tuple[str, Fault]] = []
    for lifecycle, all_met in points.items():
        beginning = points.get(LIFECYCLES[lifecycle].begins_as, [])
        met = sorted(set(all_met) - set(beginning))[seed % 2 :: 2]
        faults = [*plan_processes(lifecycle, met), *plan_mixed(met)]
        for point in met:
            if point.is_write or (lifecycle == _EVERYWHERE and not point.is_event):
                faults.append(Fault(_next(answers, point), point))
            elif point.is_event and point.number % 3 == seed % 3:
                faults.append(Fault(_next(watches, point), point))
        runs += [(lifecycle, fault) for fault in faults]
    return runs


def plan_processes(lifecycle: str, met: list[Point]) -> Iterator[Fault]:
    """Yield a crash at each request, two operators at once, and an API server that is away."""
    for point in met:
        if point.is_write:
            yield Fault(Kind.CRASH_BEFORE, point)
            yield Fault(Kind.CRASH_AFTER, point)
            if point.resource != "events":
                # An event that comes late is an event.
                yield Fault(Kind.CRASH_LATE, point)
        elif lifecycle == _EVERYWHERE and not point.is_event:
            yield Fault(Kind.CRASH_BEFORE, point)
    yield Fault(Kind.TWO, Each())
    writes = [point for point in met if point.is_write]
    for kind in (Kind.AWAY, Kind.DOWN):
        yield Fault(kind, writes[len(writes) // 2])


def plan_mixed(met: list[Point]) -> Iterator[Fault]:
    """Yield every kind at a part of all requests and events, and the bad answers at each request once."""
    for kind in (*ANSWERS, *WATCHES, Kind.GONE_HTTP):
        yield Fault(kind, Share())
    for kind in ANSWERS:
        # Each would wait for ten seconds, one after another: those come one by one.
        if kind is not Kind.TIMEOUT:
            yield Fault(kind, Each())


def rotate(kinds: tuple[Kind, ...], by: int) -> list[Kind]:
    """Return the kinds, beginning with another one."""
    return list(islice(cycle(kinds), by % len(kinds), by % len(kinds) + len(kinds)))


def _next(kinds: Iterator[Kind], point: Point) -> Kind:
    """Return the next kind that can befall a point."""
    return next(kind for kind in kinds if can_befall(kind, point))
