"""Whether a namespace has room for another attempt, under the administrator's limits. Pure.

Who waits is served in order: by priority, then by age. Nobody takes what a job before it waits for, so that a large
job is not overtaken for ever by small ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from finetune_api.conditions import ConditionType, Reason
from finetune_api.jobstatus import FineTuneJobStatus, Room

from finetune_operator.acceptance import Problem
from finetune_operator.settings import Limit

Kind = Literal["jobs", "gpus"]
KINDS: tuple[Kind, ...] = ("jobs", "gpus")
"""What a namespace may have of: places for jobs at work, and GPUs."""
Turn = tuple[int, str, str]
"""A job's place among those that wait, the first the least: negative priority, time of creation, name."""
_MOST_NAMES = 5


@dataclass(frozen=True)
class Occupancy:
    """What the other jobs of a namespace hold, and who of them is the first in line."""

    jobs: frozenset[str] = frozenset()
    """Names of the FineTuneJobs at work."""
    gpus: int = 0
    """GPUs of their Jobs and pods."""
    first: Mapping[Kind, Turn] = field(default_factory=dict)
    """For each kind of room who waits for it, and comes before all others that do."""


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
    rooms: dict[Kind, tuple[str, int, int | None]] = {
        "jobs": ("jobs at work", len(others.jobs), limit.jobs),
        "gpus": ("GPUs", others.gpus, limit.gpus),
    }
    for kind, (unit, held, allowed) in rooms.items():
        wanted: int = getattr(wants, kind)
        if allowed is None or wanted == 0:
            continue
        first = others.first.get(kind)
        is_behind = first is not None and first < turn
        if held + wanted <= allowed and not is_behind:
            continue
        figures = f"namespace {namespace} has {held} of {allowed} {unit}"
        if kind == "jobs" and others.jobs:
            figures += f" ({', '.join(sorted(others.jobs)[:_MOST_NAMES])})"
        if kind == "gpus":
            figures += f", this stage asks for {wanted}"
        behind = f"; FineTuneJob {first[2]} comes first" if first and is_behind else ""
        return Reason.LIMIT_REACHED, figures + behind
    return None
