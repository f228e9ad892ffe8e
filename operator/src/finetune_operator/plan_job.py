"""Decides what a FineTuneJob needs next: the children that should exist, the next status, when to look again.

Pure: everything that it knows comes in `Seen`, and the clock is an argument. The way is prepare,
train, evaluate; what is proven is served and exported. A stage whose condition holds is never entered again.
"""

from dataclasses import dataclass, field
from datetime import datetime

from finetune_api.artifact import Incumbent
from finetune_api.conditions import ConditionType, Reason
from finetune_api.continuation import Continuation
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobstatus import Progress
from finetune_api.reports import StageReport
from finetune_api.uris import parse_uri

from finetune_operator.acceptance import Problem, find_problem, find_source_problem, resolve_earlier
from finetune_operator.approval import judge
from finetune_operator.attempts import Begin, Done, GiveUp, Step, Wait, count_begun, next_step
from finetune_operator.deployment import deploy
from finetune_operator.draft import STAGE_CONDITIONS, Draft, Plan
from finetune_operator.evaluating import choose_server, recorded_server
from finetune_operator.incumbent import recorded_incumbent
from finetune_operator.manifests.names import job_file
from finetune_operator.manifests.stages import (
    build_claim,
    build_stage_job,
    build_training_service,
    names_default_claim,
)
from finetune_operator.observe import Attempt, JobView, ServerView, Stage
from finetune_operator.settings import Settings

_AT_ONCE = 0.1
_RUNNING = {
    Stage.PREPARE: Reason.PREPARING,
    Stage.TRAIN: Reason.TRAINING,
    Stage.EVALUATE: Reason.EVALUATING,
    Stage.EXPORT: Reason.EXPORTING,
}
_TO_THE_PROOF = (Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE)


@dataclass(frozen=True)
class Seen:
    """Everything in the cluster that bears on one FineTuneJob."""

    attempts: list[Attempt]
    earlier: JobView | None = None
    """The FineTuneJob that it begins with, if it names one that exists."""
    server: ServerView | None = None
    """The ModelServer that the job names or makes, if it exists."""
    server_is_ours: bool = False
    """Whether that server is controlled by this very job."""
    has_default_claim: bool = False
    """Whether the namespace's claim for artifacts exists; it is made once and then left alone."""
    server_is_busy: bool = False
    """Whether that server evaluates another job's result."""
    progress: Progress | None = None
    """What the running training last said."""
    incumbent: Incumbent = field(default_factory=Incumbent)
    """What serves under the same name on that server."""
    newer_job: str | None = None
    """A job that was proven later and serves under the same name on the same server."""


def plan_job(job: JobView, seen: Seen, settings: Settings, now: datetime) -> Plan:
    """Decide about one FineTuneJob."""
    draft = Draft(job, now)
    if draft.conditions.is_true(ConditionType.FAILED):
        return Plan((), job.status.to_dict(), ())
    if job.spec is None:
        draft.refuse(Reason.INVALID_SPEC, job.problem)
    elif parse_uri(job.spec.model.uri).scheme == "finetunejob":
        _continue_from(draft, resolve_earlier(job.spec, seen.earlier))
    elif not (problem := _find_problem(draft, job.spec, seen, settings)):
        draft.conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
        _walk(draft, job.spec, seen, settings)
    elif problem[0] is Reason.CONFLICT or not draft.conditions.is_true(ConditionType.TRAINED):
        draft.refuse(*problem)
    else:
        draft.not_served(*problem)
    return draft.plan()


def _find_problem(draft: Draft, spec: FineTuneJobSpec, seen: Seen, settings: Settings) -> Problem | None:
    """Return why the job may not go on; what its data came from does not matter once it is there."""
    if not draft.conditions.is_true(ConditionType.DATASET_READY):
        problem = find_source_problem(spec.dataset, settings.sources.https_hosts)
        if problem:
            return problem
    return find_problem(spec, job_file(draft.job).base, seen.server, server_is_ours=seen.server_is_ours)


def _continue_from(draft: Draft, earlier: Continuation | Problem) -> None:
    """Write down what the job begins with before anything is made from it: it never changes later."""
    if isinstance(earlier, Continuation):
        draft.conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
        draft.set_status(continuation=earlier)
        draft.wait(Stage.PREPARE, Reason.PREPARING, f"begins with the result of {earlier.job}")
        draft.again_after = _AT_ONCE
    else:
        draft.refuse(*earlier)


def _walk(draft: Draft, spec: FineTuneJobSpec, seen: Seen, settings: Settings) -> None:
    """Go through the stages as far as they are done, and begin or await the next one."""
    draft.set_status(
        start_time=draft.status.start_time or draft.now,
        method=f"{spec.method.name}/{spec.adapter.name}",
        attempts=count_begun(seen.attempts, draft.status.attempts),
        incumbent=recorded_incumbent(draft.status.incumbent, seen.attempts),
        evaluation_server=recorded_server(draft.status.evaluation_server, seen.attempts),
    )
    is_working = not (draft.conditions.is_true(ConditionType.EVALUATED) and _is_exported(draft, spec))
    if is_working and names_default_claim(draft.job) and not seen.has_default_claim:
        draft.children.append(build_claim(draft.job, settings))
    if spec.compute.nodes > 1 and not draft.conditions.is_true(ConditionType.TRAINED):
        draft.children.append(build_training_service(draft.job))
    for stage in _TO_THE_PROOF:
        if draft.conditions.is_true(STAGE_CONDITIONS[stage]):
            continue
        if stage is Stage.TRAIN and not _approve(draft, spec):
            return
        if not _take(draft, stage, _next_step(draft, stage, spec, seen), seen, settings):
            return
    exported = _is_exported(draft, spec) or _export(draft, spec, seen, settings)
    end = deploy(draft, spec.serving, seen.server, seen.newer_job)
    if end and exported:
        draft.complete(*end)


def _next_step(draft: Draft, stage: Stage, spec: FineTuneJobSpec, seen: Seen) -> Step:
    begun: int = getattr(draft.status.attempts, stage.lower())
    return next_step(stage, seen.attempts, begun, spec.retries, draft.now)


def _is_exported(draft: Draft, spec: FineTuneJobSpec) -> bool:
    """Tell whether the results are wherever the job wants them."""
    return not (spec.output and spec.output.is_exported) or draft.conditions.is_true(ConditionType.EXPORTED)


def _export(draft: Draft, spec: FineTuneJobSpec, seen: Seen, settings: Settings) -> bool:
    """Export what is proven; when that fails for good, what serves goes on serving, though the job is not Ready."""
    step = _next_step(draft, Stage.EXPORT, spec, seen)
    if isinstance(step, GiveUp) and spec.serving:
        draft.wait(Stage.EXPORT, step.reason, step.message)
        return False
    return _take(draft, Stage.EXPORT, step, seen, settings)


def _approve(draft: Draft, spec: FineTuneJobSpec) -> bool:
    """Tell whether the job may ask for GPUs; once it may, it may for good."""
    if draft.conditions.is_true(ConditionType.APPROVED):
        return True
    verdict = judge(draft.job.name, draft.job.namespace, spec, draft.status.estimate)
    draft.conditions.set(
        ConditionType.APPROVED, status=verdict.approved, reason=verdict.reason, message=verdict.message
    )
    if not verdict.approved:
        draft.conditions.set(ConditionType.READY, status=False, reason=verdict.reason, message=verdict.message)
        draft.set_status(stage="Approve")
    return verdict.approved


def _take(draft: Draft, stage: Stage, step: Step, seen: Seen, settings: Settings) -> bool:
    """Do what the step says; tell whether the stage is done and the next may follow."""
    match step:
        case Done(report):
            return _finish(draft, stage, report)
        case GiveUp(reason, message):
            draft.fail(reason, message, stage)
        case Begin(number):
            if stage is Stage.EVALUATE:
                draft.set_status(
                    incumbent=draft.status.incumbent or seen.incumbent,
                    evaluation_server=choose_server(draft, seen.server, number, is_busy=seen.server_is_busy),
                )
            view = JobView(**{**vars(draft.job), "status": draft.status})
            draft.children.append(build_stage_job(view, stage, number, settings))
            draft.set_status(
                attempts=draft.status.attempts.model_copy(update={stage.lower(): number}),
                progress=None if stage is Stage.TRAIN and number == 1 else draft.status.progress,
            )
            draft.wait(stage, _RUNNING[stage], f"attempt {number}")
        case Wait(reason, message, until):
            draft.wait(stage, reason or _RUNNING[stage], message)
            if until is not None:
                draft.again_after = max((until - draft.now).total_seconds(), 0.1)
            elif stage is Stage.TRAIN:
                draft.follow(seen.progress)
    return False


def _finish(draft: Draft, stage: Stage, report: StageReport) -> bool:
    """Take over what a stage reports; tell whether the job goes on."""
    reason = Reason.SUCCEEDED
    match stage:
        case Stage.PREPARE if report.dataset:
            draft.set_status(dataset=report.dataset, hyperparameters=report.hyperparameters, estimate=report.estimate)
            message = report.dataset.describe()
        case Stage.TRAIN if report.training and report.artifact:
            steps = report.training.steps
            draft.set_status(
                training=report.training,
                artifact=report.artifact,
                progress=Progress(
                    percentage=100,
                    step=steps,
                    steps=steps,
                    remaining_seconds=0,
                    loss=round(report.training.loss, 4),
                    text="100%",
                    update_time=draft.now,
                ),
            )
            message = f"{steps} steps, loss {report.training.loss:.4f}"
        case Stage.EVALUATE if report.evaluation:
            draft.set_status(evaluation=report.evaluation)
            reason, message = Reason.GATES_PASSED, "; ".join(gate.message for gate in report.evaluation.gates)
            if not report.evaluation.passed:
                draft.fail(Reason.GATES_FAILED, message, stage)
                return False
        case Stage.EXPORT if report.export:
            draft.set_status(export=report.export)
            message = report.export.describe()
        case _:
            draft.fail(Reason.CONFLICT, f"the report of {stage} lacks its part: are the images of one version?", stage)
            return False
    draft.conditions.set(STAGE_CONDITIONS[stage], status=True, reason=reason, message=message)
    return True
