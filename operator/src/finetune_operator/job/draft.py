"""The next state of one FineTuneJob while it is decided: its status, its conditions, its children.

Pure: the clock is an argument.
"""

from datetime import datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.jobstatus import TrainingProgress
from finetune_api.stage import Phase, Stage

from finetune_operator.kube.kinds import FINETUNEJOB, JOB, Manifest
from finetune_operator.state.child_jobs import Attempt, State
from finetune_operator.state.conditions import STAGE_CONDITIONS, Conditions, changed_conditions
from finetune_operator.state.plan import REQUEUE_SOON_SECONDS, Deletion, Plan
from finetune_operator.state.views import JobView

PROGRESS_SECONDS = 5.0
"""How often the progress of a running training is read."""


class Draft:
    """One job's next state."""

    def __init__(self, job: JobView, now: datetime) -> None:
        """Begin with what the status says."""
        self.job = job
        self.conditions = Conditions.start(job.status.conditions, job.generation, now)
        self.now = now
        self.status = job.status.model_copy(update={"observed_generation": job.generation, "waiting_for": None})
        self.children: list[Manifest] = []
        self.deletions: list[Deletion] = []
        self.requeue_after: float | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the job ended for good."""
        return self.conditions.is_true(ConditionType.FAILED)

    def set_status(self, **changes: object) -> None:
        """Set fields of the status, by their Python names."""
        self.status = self.status.model_copy(update=changes)

    def plan(self, expiry: datetime | None = None) -> Plan:
        """Return what to do; at `expiry` the job itself is deleted."""
        listed = self.conditions.listed()
        ready = self.conditions.by_type.get(ConditionType.READY)
        self.set_status(conditions=listed, reason=ready.reason if ready else self.status.reason)
        events = changed_conditions(self.job.status.conditions, listed)
        status = self.status.to_dict()
        if expiry is not None and expiry > self.now:
            self.look_again((expiry - self.now).total_seconds())
        elif expiry is not None and status != self.job.status.to_dict():
            # First it is written how the job ended.
            self.look_again(REQUEUE_SOON_SECONDS)
        elif expiry is not None:
            self.deletions.append(Deletion(FINETUNEJOB, self.job.name, self.job.uid, self.job.version))
        return Plan(
            desired=tuple(self.children),
            status=status,
            events=tuple(events),
            requeue_after=self.requeue_after,
            deletions=tuple(self.deletions),
        )

    def look_again(self, seconds: float) -> None:
        """Look again after a while, or earlier where that was asked for already."""
        self.requeue_after = seconds if self.requeue_after is None else min(self.requeue_after, seconds)

    def stop(self, attempts: list[Attempt]) -> None:
        """Let the Jobs go that have not ended; their pods get SIGTERM."""
        for one in attempts:
            if one.state is State.ACTIVE and not one.is_going:
                self.deletions.append(Deletion(JOB, one.name, one.uid, one.version))

    def follow(self, progress: TrainingProgress | None) -> None:
        """Take over new progress, but not with each event: writing it is an event too."""
        self.look_again(PROGRESS_SECONDS)
        known = self.status.progress
        written = known.update_time if known else None
        if progress is None or progress.model_copy(update={"update_time": written}) == known:
            return
        if written is None or (self.now - written).total_seconds() >= PROGRESS_SECONDS:
            self.set_status(progress=progress.model_copy(update={"update_time": self.now}))

    def complete(self, reason: Reason, message: str) -> None:
        """Everything that was asked for is there."""
        self.conditions.set(ConditionType.READY, status=True, reason=reason, message=message)
        self.set_status(stage=Phase.COMPLETE, completion_time=self.status.completion_time or self.now)

    def not_served(self, reason: Reason, message: str) -> None:
        """The proven result does not answer under its name, or not any more."""
        self._lack(ConditionType.SERVED, reason, message)
        self.set_status(stage=Phase.SERVE)

    def wait(self, stage: Stage, reason: Reason, message: str) -> None:
        """A stage is on its way."""
        self._lack(STAGE_CONDITIONS[stage], reason, message)
        self.set_status(stage=stage)

    def refuse(self, reason: Reason, message: str) -> None:
        """The job may not begin or go on as things are."""
        self._lack(ConditionType.ACCEPTED, reason, message)

    def fail(self, reason: Reason, message: str, stage: Stage) -> None:
        """End the job for good, because of a stage."""
        self._lack(STAGE_CONDITIONS[stage], reason, message)
        self.conditions.set(ConditionType.FAILED, status=True, reason=reason, message=message)
        self.set_status(stage=Phase.FAILED, completion_time=self.now)

    def _lack(self, condition: ConditionType, reason: Reason, message: str) -> None:
        """Let a condition not hold, and the job with it not be Ready."""
        for kind in (condition, ConditionType.READY):
            self.conditions.set(kind, status=False, reason=reason, message=message)
