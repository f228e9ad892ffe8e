"""Builds conditions by the Kubernetes API conventions, and the events about their changes. The clock is an argument."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from finetune_api.conditions import NORMAL_REASONS, Condition, ConditionType, Reason
from finetune_api.contract.untrusted import make_printable
from finetune_api.stage import Stage

from finetune_operator.kube.kinds import Manifest

_NORMAL = NORMAL_REASONS | {Reason.SUPERSEDED}
"""Reasons whose events have type Normal."""
_SILENT = {Reason.ACCEPTED, Reason.PREPARING}
"""Reasons without an event: every job has them at its start, in its status."""


STAGE_CONDITIONS = {
    Stage.PREPARE: ConditionType.DATASET_READY,
    Stage.TRAIN: ConditionType.TRAINED,
    Stage.EVALUATE: ConditionType.EVALUATED,
    Stage.EXPORT: ConditionType.EXPORTED,
}
"""The condition of a FineTuneJob that is true once a stage is done."""


def true_conditions(conditions: Iterable[Condition]) -> dict[str, Condition]:
    """Return the conditions whose status is True, by type."""
    return {condition.type: condition for condition in conditions if condition.status == "True"}


def raw_true_conditions(manifest: Manifest) -> dict[str, Manifest]:
    """Return the conditions of a raw object whose status is True, by type."""
    conditions = (manifest.get("status") or {}).get("conditions", [])
    return {condition["type"]: condition for condition in conditions if condition["status"] == "True"}


@dataclass
class Conditions:
    """The conditions of one object while its next status is built."""

    generation: int
    now: datetime
    by_type: dict[str, Condition] = field(default_factory=dict)

    @classmethod
    def start(cls, current: list[Condition], generation: int, now: datetime) -> "Conditions":
        """Start from the object's conditions, without those of unknown types, which the operator would never update."""
        known = list(ConditionType)
        return cls(generation, now, {condition.type: condition for condition in current if condition.type in known})

    def is_true(self, kind: ConditionType) -> bool:
        """Return whether a condition is true."""
        condition = self.by_type.get(kind)
        return condition is not None and condition.status == "True"

    def set(self, kind: ConditionType, *, status: bool, reason: Reason, message: str = "") -> None:
        """Set a condition; the transition time changes only if the status changes."""
        text = "True" if status else "False"
        before = self.by_type.get(kind)
        self.by_type[kind] = Condition(
            type=kind,
            status="True" if status else "False",
            observed_generation=self.generation,
            last_transition_time=before.last_transition_time if before and before.status == text else self.now,
            reason=reason,
            message=make_printable(message[:4096]),
        )

    def listed(self) -> list[Condition]:
        """Return the conditions in the order of `ConditionType`."""
        order = [str(kind) for kind in ConditionType]
        return sorted(self.by_type.values(), key=lambda condition: order.index(condition.type))


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event about a changed condition, to publish once the status is written."""

    type: str
    reason: str
    message: str


def changed_conditions(before: list[Condition], after: list[Condition]) -> list[Event]:
    """Return an event for each condition that has a new status or reason."""
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    events = []
    for condition in after:
        if known.get(condition.type) == (condition.status, condition.reason):
            continue
        if condition.type == ConditionType.READY and condition.status == "False":
            # It repeats the condition of the stage.
            continue
        if condition.reason in _SILENT:
            continue
        warning = condition.type == ConditionType.FAILED or condition.reason not in _NORMAL
        message = condition.message or f"{condition.type} is {condition.status}"
        events.append(Event("Warning" if warning else "Normal", condition.reason, message[:1024]))
    return events


def format_seconds(seconds: int) -> str:
    """Return a duration as text: `45s`, `3m20s`, `2h05m`."""
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
