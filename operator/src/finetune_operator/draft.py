"""The next state of one FineTuneJob while it is decided: its status, its conditions, its children.

Pure: the clock is an argument.
"""

from dataclasses import dataclass
from datetime import datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.jobstatus import Progress

from finetune_operator.kinds import Manifest
from finetune_operator.observe import JobView, Stage
from finetune_operator.status import Conditions, Event, changed_conditions

PROGRESS_SECONDS = 5.0
"""How often the progress of a running training is read."""

STAGE_CONDITIONS = {
    Stage.PREPARE: ConditionType.DATASET_READY,
    Stage.TRAIN: ConditionType.TRAINED,
    Stage.EVALUATE: ConditionType.EVALUATED,
    Stage.EXPORT: ConditionType.EXPORTED,
}
"""The condition that holds once a stage is done."""


@dataclass(frozen=True)
class Plan:
    """What to do about one object."""

    apply: tuple[Manifest, ...]
    status: Manifest
    events: tuple[Event, ...]
    again_after: float | None = None
    """Seconds after which to look again though nothing was seen to change."""


class Draft:
    """One job's next state."""

    def __init__(self, job: JobView, now: datetime) -> None:
        """Begin with what the status says."""
        self.job = job
        self.conditions = Conditions.start(job.status.conditions, job.generation, now)
        self.now = now
        self.status = job.status.model_copy(update={"observed_generation": job.generation})
        self.children: list[Manifest] = []
        self.again_after: float | None = None

    def set_status(self, **changes: object) -> None:
        """Set fields of the status, by their Python names."""
        self.status = self.status.model_copy(update=changes)

    def plan(self) -> Plan:
        """Return what to do."""
        listed = self.conditions.listed()
        ready = self.conditions.by_type[ConditionType.READY]
        self.set_status(conditions=listed, reason=ready.reason)
        events = changed_conditions(self.job.status.conditions, listed)
        return Plan(tuple(self.children), self.status.to_dict(), tuple(events), self.again_after)

    def follow(self, progress: Progress | None) -> None:
        """Take over new progress, but not with each event: writing it is an event too."""
        self.again_after = PROGRESS_SECONDS
        known = self.status.progress
        written = known.update_time if known else None
        if progress is None or progress.model_copy(update={"update_time": written}) == known:
            return
        if written is None or (self.now - written).total_seconds() >= PROGRESS_SECONDS:
            self.set_status(progress=progress.model_copy(update={"update_time": self.now}))

    def complete(self, reason: Reason, message: str) -> None:
        """Everything that was asked for is there."""
        self.conditions.set(ConditionType.READY, status=True, reason=reason, message=message)
        self.set_status(stage="Complete", completion_time=self.status.completion_time or self.now)

    def not_served(self, reason: Reason, message: str) -> None:
        """The proven result does not answer under its name, or not any more."""
        self._lack(ConditionType.SERVED, reason, message)
        self.set_status(stage="Serve")

    def wait(self, stage: Stage, reason: Reason, message: str) -> None:
        """A stage is on its way."""
        self._lack(STAGE_CONDITIONS[stage], reason, message)
        self.set_status(stage=str(stage))

    def refuse(self, reason: Reason, message: str) -> None:
        """The job may not begin or go on as things are."""
        self._lack(ConditionType.ACCEPTED, reason, message)

    def fail(self, reason: Reason, message: str, stage: Stage) -> None:
        """End the job for good, because of a stage."""
        self._lack(STAGE_CONDITIONS[stage], reason, message)
        self.conditions.set(ConditionType.FAILED, status=True, reason=reason, message=message)
        self.set_status(stage="Failed", completion_time=self.now)

    def _lack(self, condition: ConditionType, reason: Reason, message: str) -> None:
        """Let a condition not hold, and the job with it not be Ready."""
        for kind in (condition, ConditionType.READY):
            self.conditions.set(kind, status=False, reason=reason, message=message)
