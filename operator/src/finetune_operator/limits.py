"""Whether a namespace has room for another attempt, under the administrator's limits. Pure.

Who waits is served in order: by priority, then by age. Nobody takes what a job before it waits for, so that a large
job is not overtaken for ever by small ones.
"""

from dataclasses import dataclass

from finetune_api.conditions import ConditionType, Reason
from finetune_api.jobstatus import FineTuneJobStatus, Room

from finetune_operator.acceptance import Problem
from finetune_operator.settings import Limit

Turn = tuple[int, str, str]
"""A job's place among those that wait, the first the least: negative priority, time of creation, name."""
_MOST_NAMES = 5


@dataclass(frozen=True)
class Waiting:
    """A job that waits for room."""

    turn: Turn
    jobs: int
    """How many places of jobs it waits for: one, or none where it is at work."""
    gpus: int


@dataclass(frozen=True)
class Occupancy:
    """What the other jobs of a namespace hold, and what they wait for."""

    jobs: frozenset[str] = frozenset()
    """Names of the FineTuneJobs at work."""
    gpus: int = 0
    """GPUs of their Jobs and pods."""
    waiting: tuple[Waiting, ...] = ()


def find_excess(namespace: str, limit: Limit, most_gpus: int) -> Problem | None:
    """Return why a job could never begin, whatever the others do; None where it could.

    Args:
        namespace: the job's.
        limit: what the namespace may have.
        most_gpus: as many as the job's largest stage to come asks for.
    """
    hint = "ask the administrator for more (limits in the chart's values)"
    if limit.gpus is not None and most_gpus > limit.gpus:
        return Reason.LIMIT_EXCEEDED, (
            f"compute asks for {most_gpus} GPUs, namespace {namespace} may have {limit.gpus}:"
            f" make another job with fewer, or {hint}"
        )
    if limit.jobs == 0:
        return Reason.LIMIT_EXCEEDED, f"namespace {namespace} may have no job at work: {hint}"
    return None


def needs_place(status: FineTuneJobStatus) -> bool:
    """Tell whether a job that goes on takes another place among those at work: it has not begun, or was suspended."""
    is_suspended = any(one.type == ConditionType.SUSPENDED and one.status == "True" for one in status.conditions)
    is_waiting = status.waiting_for is not None and status.waiting_for.jobs > 0
    return status.attempts.prepare == 0 or is_suspended or is_waiting


def find_shortage(namespace: str, limit: Limit, turn: Turn, wants: Room, others: Occupancy) -> Problem | None:
    """Return what a job has to wait for; None where there is room.

    Args:
        namespace: the job's.
        limit: what the namespace may have.
        turn: the job's place among those that wait.
        wants: what it takes when it begins.
        others: what the other jobs hold and wait for.
    """
    for kind, unit, held, allowed in (
        ("jobs", "jobs at work", len(others.jobs), limit.jobs),
        ("gpus", "GPUs", others.gpus, limit.gpus),
    ):
        wanted: int = getattr(wants, kind)
        if allowed is None or wanted == 0:
            continue
        turns = (one.turn for one in others.waiting if one.turn < turn and getattr(one, kind))
        first = min(turns, default=None)
        if held + wanted <= allowed and first is None:
            continue
        figures = f"namespace {namespace} has {held} of {allowed} {unit}"
        if kind == "jobs" and others.jobs:
            figures += f" ({', '.join(sorted(others.jobs)[:_MOST_NAMES])})"
        if kind == "gpus":
            figures += f", this stage asks for {wanted}"
        behind = f"; FineTuneJob {first[2]} comes first" if first else ""
        return Reason.LIMIT_REACHED, figures + behind
    return None
