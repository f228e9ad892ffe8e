"""Plans the next action of a FineTuneJob: its desired objects, its next status, and when to requeue it. No I/O.

The input is a `JobSnapshot`, and the clock is an argument. The stages are prepare, train and evaluate; a result that
passes its gates is then exported and served. A stage whose condition is true is never entered again.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobstatus import QuotaRequest
from finetune_api.stage import Stage
from finetune_api.uris import parse_uri

from finetune_operator.job.acceptance import Problem, check_server, check_sources
from finetune_operator.job.approval import decide_approval
from finetune_operator.job.attempts import (
    Done,
    GiveUp,
    StageAction,
    StartAttempt,
    Wait,
    count_attempts,
    last_start_time,
    next_action,
)
from finetune_operator.job.deadlines import (
    explain_deadline,
    find_running,
    is_past_deadline,
    start_clock,
    stop_clock,
    update_clock,
)
from finetune_operator.job.evaluation import choose_evaluation_server, find_recorded_incumbent, find_recorded_server
from finetune_operator.job.expiry import find_expiry, is_retired
from finetune_operator.job.plan_builder import PlanBuilder
from finetune_operator.job.quota import check_insufficient_quota, check_over_quota, count_gpus, needs_job_quota
from finetune_operator.job.results import find_template_digest, record_report
from finetune_operator.job.serving import deploy
from finetune_operator.job.snapshot import JobSnapshot
from finetune_operator.job.suspension import explain_stopping, explain_suspension, name_stopping, resume, suspend
from finetune_operator.job.volumes import explain_volumes
from finetune_operator.job.warm_start import keep_result, record_warm_start, resolve_parent
from finetune_operator.manifests.isolation import build_isolation, build_peers_policy
from finetune_operator.manifests.names import job_file
from finetune_operator.manifests.stages import build_claim, build_stage_job, build_training_service, names_default_claim
from finetune_operator.settings import Settings
from finetune_operator.state.conditions import STAGE_CONDITIONS
from finetune_operator.state.plan import REQUEUE_SOON_SECONDS, Plan
from finetune_operator.state.views import JobView

_GATED_STAGES = (Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE)
"""The stages up to the evaluation gates."""
_RUNNING_REASONS = {
    Stage.PREPARE: Reason.PREPARING,
    Stage.TRAIN: Reason.TRAINING,
    Stage.EVALUATE: Reason.EVALUATING,
    Stage.EXPORT: Reason.EXPORTING,
}
"""Reason of a stage's condition while an attempt runs."""


def plan_job(job: JobView, snapshot: JobSnapshot, settings: Settings, now: datetime) -> Plan:
    """Return what to do about one FineTuneJob."""
    builder = PlanBuilder(job, now)
    if job.spec is None and not builder.has_failed:
        builder.set_not_accepted(Reason.INVALID_SPEC, job.problem)
    elif job.spec and not builder.has_failed:
        JobPlanner(builder, job.spec, snapshot, settings).plan()
    if builder.has_failed:
        builder.delete_active(snapshot.attempts)
    return builder.build(find_expiry(builder, job.spec, has_dependents=snapshot.has_dependents) if job.spec else None)


@dataclass(frozen=True)
class JobPlanner:
    """Plans one FineTuneJob whose spec is valid and that has not failed."""

    builder: PlanBuilder
    spec: FineTuneJobSpec
    snapshot: JobSnapshot
    settings: Settings

    def plan(self) -> None:
        """Collect the plan in the builder."""
        self._plan_stages()
        self._plan_suspension()
        self._set_retired_time()

    def _plan_stages(self) -> None:
        builder, spec = self.builder, self.spec
        running = update_clock(builder, spec, self.snapshot.attempts)
        if running and is_past_deadline(builder, spec) and not (running.stage is Stage.EXPORT and spec.serving):
            builder.set_failed(*explain_deadline(spec), running.stage)
        elif parse_uri(spec.model.uri).scheme == "finetunejob":
            record_warm_start(builder, resolve_parent(spec, self.snapshot.parent))
        elif not (problem := self._check_admission()):
            builder.conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
            self._advance()
        elif problem[0] is Reason.CONFLICT or not builder.conditions.is_true(ConditionType.TRAINED):
            builder.set_not_accepted(*problem)
        else:
            builder.set_not_served(*problem)

    def _plan_suspension(self) -> None:
        if self.builder.has_failed:
            stop_clock(self.builder)
        elif self.spec.suspend:
            suspend(
                self.builder, self.snapshot.attempts, self.snapshot.lingering_pods, has_work=not self._stages_are_done()
            )
        else:
            resume(self.builder)

    def _set_retired_time(self) -> None:
        """Record since when no server hosts the result any more."""
        snapshot, status = self.snapshot, self.builder.status
        is_evaluated = self.builder.conditions.is_true(ConditionType.EVALUATED)
        retired = is_evaluated and is_retired(
            self.builder.job.name, snapshot.server, snapshot.newer_job, controls_server=snapshot.controls_server
        )
        self.builder.set_status(retired_time=(status.retired_time or self.builder.now) if retired else None)

    def _check_admission(self) -> Problem | None:
        """Return why the job cannot start or continue; the dataset's source does not matter once it is prepared."""
        conditions, snapshot = self.builder.conditions, self.snapshot
        if snapshot.orphaned_job and not conditions.is_true(ConditionType.EVALUATED):
            return Reason.CONFLICT, (
                f"Job {snapshot.orphaned_job} has lost its ownerReferences and may still be running:"
                " restore them, or delete the Job"
            )
        if not conditions.is_true(ConditionType.DATASET_READY):
            problem = check_sources(self.spec.dataset, self.settings.sources.https_hosts)
            if problem:
                return problem
        base = job_file(self.builder.job).base
        template = find_template_digest(base, self.builder.status.dataset)
        return check_server(self.spec, base, snapshot.server, template, controls_server=snapshot.controls_server)

    def _advance(self) -> None:
        """Skip the stages that are done, then start the next stage or wait for it."""
        self._record_attempts()
        self._add_shared_objects()
        for stage in _GATED_STAGES:
            if self.builder.conditions.is_true(STAGE_CONDITIONS[stage]):
                continue
            if stage is Stage.TRAIN and keep_result(self.builder):
                continue
            if stage is Stage.TRAIN and not self._approve():
                return
            if not self._apply_action(stage, self._next_action(stage)):
                return
        exported = self._is_exported() or self._export()
        completion = deploy(self.builder, self.spec.serving, self.snapshot.server, self.snapshot.newer_job)
        if completion and exported:
            self.builder.set_complete(*completion)

    def _record_attempts(self) -> None:
        """Update the status from the attempts that exist: an attempt may have started before its status was written."""
        status, attempts = self.builder.status, self.snapshot.attempts
        start_time = last_start_time(attempts, status.attempts, status.attempt_time, self.builder.now)
        self.builder.set_status(
            start_time=status.start_time or start_time,
            attempt_time=start_time,
            method=f"{self.spec.method.name}/{self.spec.adapter.name}",
            attempts=count_attempts(attempts, status.attempts),
            incumbent=find_recorded_incumbent(status.incumbent, attempts),
            evaluation_server=find_recorded_server(status.evaluation_server, attempts),
        )

    def _add_shared_objects(self) -> None:
        """Add the objects that the stages' pods need besides their Jobs."""
        job, desired = self.builder.job, self.builder.desired
        if not self._stages_are_done():
            if names_default_claim(job) and not self.snapshot.has_default_claim:
                desired.append(build_claim(job, self.settings))
            desired += build_isolation(job.namespace, self.settings.network)
        if self.spec.compute.nodes > 1 and not self._is_trained():
            desired.append(build_training_service(job))
            if self.settings.network.isolate_jobs:
                desired.append(build_peers_policy(job))

    def _is_trained(self) -> bool:
        """Return whether no training remains: it is done, or the job keeps the result of its parent."""
        kept = job_file(self.builder.job).kept
        return kept is not None or self.builder.conditions.is_true(ConditionType.TRAINED)

    def _stages_are_done(self) -> bool:
        return self.builder.conditions.is_true(ConditionType.EVALUATED) and self._is_exported()

    def _is_exported(self) -> bool:
        """Return whether the result is at all destinations of the spec, or has none."""
        output = self.spec.output
        return not (output and output.is_exported) or self.builder.conditions.is_true(ConditionType.EXPORTED)

    def _export(self) -> bool:
        """Export the result; return whether that is done. If it fails permanently, a served result stays served."""
        action = self._next_action(Stage.EXPORT)
        if isinstance(action, GiveUp) and self.spec.serving:
            self.builder.delete_active(self.snapshot.attempts)
            self.builder.set_stage_incomplete(Stage.EXPORT, action.reason, action.message)
            return False
        return self._apply_action(Stage.EXPORT, action)

    def _approve(self) -> bool:
        """Return whether the job may request GPUs; an approval is never withdrawn."""
        if self.builder.conditions.is_true(ConditionType.APPROVED):
            return True
        job = self.builder.job
        approval = decide_approval(job.name, job.namespace, self.spec, self.builder.status.estimate)
        if not approval.approved:
            self.builder.set_not_approved(approval.reason, approval.message)
            return False
        self.builder.conditions.set(
            ConditionType.APPROVED, status=True, reason=approval.reason, message=approval.message
        )
        return True

    def _next_action(self, stage: Stage) -> StageAction:
        """Return the next action of a stage, from its attempts, the deadline, the suspension and what still stops."""
        status, snapshot = self.builder.status, self.snapshot
        started, now = status.attempts.of(stage), self.builder.now
        action = next_action(stage, snapshot.attempts, started, self.spec.retries, now, status.attempt_time)
        if isinstance(action, Done | GiveUp):
            return action
        if is_past_deadline(self.builder, self.spec):
            return GiveUp(*explain_deadline(self.spec))
        volumes = explain_volumes(snapshot.missing_volumes, snapshot.unbound_claims, self.settings.artifacts)
        if volumes and isinstance(action, Wait):
            action = Wait(*volumes)
        if self.spec.suspend:
            return Wait(*explain_suspension(snapshot.attempts, snapshot.lingering_pods))
        stopping = name_stopping(snapshot.attempts, snapshot.lingering_pods)
        starts_attempt = isinstance(action, StartAttempt) or action.reason is Reason.RETRYING
        return Wait(*explain_stopping(stopping)) if stopping and starts_attempt else action

    def _apply_action(self, stage: Stage, action: StageAction) -> bool:
        """Add an action to the plan; return whether the stage is done and the next one may start."""
        match action:
            case Done(report):
                return record_report(self.builder, stage, report)
            case GiveUp(reason, message):
                self.builder.set_failed(reason, message, stage)
            case StartAttempt(number):
                self._start_attempt(stage, number)
            case Wait(reason, message, until):
                self.builder.set_stage_incomplete(stage, reason or _RUNNING_REASONS[stage], message)
                if until is not None:
                    seconds = (until - self.builder.now).total_seconds()
                    self.builder.requeue_after(max(seconds, REQUEUE_SOON_SECONDS))
                elif stage is Stage.TRAIN and find_running(self.snapshot.attempts):
                    self.builder.update_progress(self.snapshot.progress)
        return False

    def _start_attempt(self, stage: Stage, number: int) -> None:
        """Add the Job of an attempt to the desired objects, or record which quota it waits for."""
        builder, snapshot = self.builder, self.snapshot
        before = builder.status
        if stage is Stage.EVALUATE:
            builder.set_status(
                incumbent=before.incumbent or snapshot.incumbent,
                evaluation_server=choose_evaluation_server(
                    builder, snapshot.server, number, is_busy=snapshot.server_is_busy
                ),
            )
        job = build_stage_job(replace(builder.job, status=builder.status), stage, number, self.settings)
        problem = self._check_quota(count_gpus(job, self.settings.gpu.resource_name))
        if problem:
            # The incumbent and the server are chosen again when the attempt starts.
            builder.status = before.model_copy(update={"waiting_for": builder.status.waiting_for})
            builder.set_stage_incomplete(stage, *problem)
            return
        builder.desired.append(job)
        builder.set_status(
            start_time=builder.status.start_time or builder.now,
            attempt_time=builder.now,
            attempts=builder.status.attempts.with_count(stage, number),
            progress=None if stage is Stage.TRAIN and number == 1 else builder.status.progress,
        )
        if not job["spec"].get("suspend"):
            start_clock(builder, self.spec)
        builder.set_stage_incomplete(stage, _RUNNING_REASONS[stage], f"attempt {number}")

    def _check_quota(self, gpus: int) -> Problem | None:
        """Return why an attempt with this number of GPUs may not start under the limits of the namespace."""
        job, compute = self.builder.job, self.spec.compute
        limit = self.settings.limits.of(job.namespace)
        training_gpus = 0 if self._is_trained() else compute.nodes * compute.resources.gpus
        over_quota = check_over_quota(job.namespace, limit, max(gpus, training_gpus))
        if over_quota:
            return over_quota
        request = QuotaRequest(jobs=int(needs_job_quota(job.status)), gpus=gpus)
        position = (-self.spec.priority, job.created, job.name)
        insufficient = check_insufficient_quota(job.namespace, limit, position, request, self.snapshot.other_usage)
        if insufficient:
            self.builder.set_status(waiting_for=request)
        return insufficient
