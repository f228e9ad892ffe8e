"""Collects the plan of one FineTuneJob while it is decided: status, conditions, desired objects, deletions. No I/O."""

from datetime import datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.jobstatus import TrainingProgress
from finetune_api.stage import Phase, Stage

from finetune_operator.kube.kinds import FINETUNEJOB, JOB, Manifest
from finetune_operator.state.child_jobs import Attempt, AttemptState
from finetune_operator.state.conditions import STAGE_CONDITIONS, Conditions, changed_conditions
from finetune_operator.state.plan import REQUEUE_SOON_SECONDS, Deletion, Plan
from finetune_operator.state.views import JobView

PROGRESS_SECONDS = 5.0
"""How often the progress of a running training is read."""


class PlanBuilder:
    """The plan of one job while it is decided."""

    def __init__(self, job: JobView, now: datetime) -> None:
        """Start from the job's present status."""
        self.job = job
        self.conditions = Conditions.start(job.status.conditions, job.generation, now)
        self.now = now
        self.status = job.status.model_copy(update={"observed_generation": job.generation, "waiting_for": None})
        self.desired: list[Manifest] = []
        self._deletions: list[Deletion] = []
        self._requeue_after: float | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the job failed permanently."""
        return self.conditions.is_true(ConditionType.FAILED)

    def set_status(self, **changes: object) -> None:
        """Set fields of the status, by their Python names."""
        self.status = self.status.model_copy(update=changes)

    def build(self, expiry: datetime | None = None) -> Plan:
        """Return the plan; at `expiry` it deletes the job itself."""
        conditions = self.conditions.listed()
        ready = self.conditions.by_type.get(ConditionType.READY)
        self.set_status(conditions=conditions, reason=ready.reason if ready else self.status.reason)
        status = self.status.to_dict()
        if expiry is not None and expiry > self.now:
            self.requeue_after((expiry - self.now).total_seconds())
        elif expiry is not None and status != self.job.status.to_dict():
            # The job's outcome is written before the job is deleted.
            self.requeue_after(REQUEUE_SOON_SECONDS)
        elif expiry is not None:
            self._deletions.append(Deletion(FINETUNEJOB, self.job.name, self.job.uid, self.job.version))
        return Plan(
            desired=tuple(self.desired),
            status=status,
            events=tuple(changed_conditions(self.job.status.conditions, conditions)),
            requeue_after=self._requeue_after,
            deletions=tuple(self._deletions),
        )

    def requeue_after(self, seconds: float) -> None:
        """Requeue the job after some seconds, or earlier if that was already requested."""
        self._requeue_after = seconds if self._requeue_after is None else min(self._requeue_after, seconds)

    def delete_active(self, attempts: list[Attempt]) -> None:
        """Delete the Jobs that have not finished; their pods get SIGTERM."""
        for attempt in attempts:
            if attempt.state is AttemptState.ACTIVE and not attempt.is_terminating:
                self._deletions.append(Deletion(JOB, attempt.name, attempt.uid, attempt.version))

    def update_progress(self, progress: TrainingProgress | None) -> None:
        """Copy new progress to the status, at most every few seconds: each status write causes a watch event."""
        self.requeue_after(PROGRESS_SECONDS)
        known = self.status.progress
        written = known.update_time if known else None
        if progress is None or progress.model_copy(update={"update_time": written}) == known:
            return
        if written is None or (self.now - written).total_seconds() >= PROGRESS_SECONDS:
            self.set_status(progress=progress.model_copy(update={"update_time": self.now}))

    def set_complete(self, reason: Reason, message: str) -> None:
        """Mark the job as Ready: it has produced everything that its spec requests."""
        self.conditions.set(ConditionType.READY, status=True, reason=reason, message=message)
        self.set_status(stage=Phase.COMPLETE, completion_time=self.status.completion_time or self.now)

    def set_not_served(self, reason: Reason, message: str) -> None:
        """Record why the result is not served, or no longer."""
        self._set_false(ConditionType.SERVED, reason, message)
        self.set_status(stage=Phase.SERVE)

    def set_stage_incomplete(self, stage: Stage, reason: Reason, message: str) -> None:
        """Record that a stage runs, or what it waits for."""
        self._set_false(STAGE_CONDITIONS[stage], reason, message)
        self.set_status(stage=stage)

    def set_not_approved(self, reason: Reason, message: str) -> None:
        """Record why the job may not request GPUs yet."""
        self._set_false(ConditionType.APPROVED, reason, message)
        self.set_status(stage=Phase.APPROVE)

    def set_not_accepted(self, reason: Reason, message: str) -> None:
        """Record why the job cannot start or continue."""
        self._set_false(ConditionType.ACCEPTED, reason, message)

    def set_failed(self, reason: Reason, message: str, stage: Stage) -> None:
        """Fail the job permanently, because of a stage."""
        self._set_false(STAGE_CONDITIONS[stage], reason, message)
        self.conditions.set(ConditionType.FAILED, status=True, reason=reason, message=message)
        self.set_status(stage=Phase.FAILED, completion_time=self.now)

    def _set_false(self, condition: ConditionType, reason: Reason, message: str) -> None:
        """Set a condition to False, and Ready with it."""
        for kind in (condition, ConditionType.READY):
            self.conditions.set(kind, status=False, reason=reason, message=message)
