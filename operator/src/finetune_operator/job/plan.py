"""Decides what a FineTuneJob needs next: the children that should exist, the next status, when to look again.

Pure: everything that it knows comes in `Seen`, and the clock is an argument. The way is prepare,
train, evaluate; what is proven is served and exported. A stage whose condition holds is never entered again.
"""

from datetime import datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.stage import Phase, Stage
from finetune_api.uris import parse_uri
from finetune_api.warm_start import WarmStart

from finetune_operator.job.acceptance import Problem, find_problem, find_source_problem, resolve_earlier
from finetune_operator.job.approval import judge
from finetune_operator.job.attempts import Begin, Done, GiveUp, Step, Wait, count_begun, last_begun, next_step
from finetune_operator.job.deadlines import explain_deadline, find_running, is_late, keep_clock, stop_clock
from finetune_operator.job.draft import Draft
from finetune_operator.job.evaluation import recorded_incumbent, recorded_server
from finetune_operator.job.expiry import find_expiry, is_retired
from finetune_operator.job.results import take_over
from finetune_operator.job.serving import deploy
from finetune_operator.job.snapshot import Seen
from finetune_operator.job.start import RUNNING, begin
from finetune_operator.job.suspension import explain_pause, find_stopping, pause, resume
from finetune_operator.manifests.isolation import build_isolation, build_peers_policy
from finetune_operator.manifests.names import job_file
from finetune_operator.manifests.stages import (
    build_claim,
    build_training_service,
    names_default_claim,
)
from finetune_operator.settings import Settings
from finetune_operator.state.conditions import STAGE_CONDITIONS
from finetune_operator.state.plan import REQUEUE_SOON_SECONDS, Plan
from finetune_operator.state.views import JobView

_TO_THE_PROOF = (Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE)


def plan_job(job: JobView, seen: Seen, settings: Settings, now: datetime) -> Plan:
    """Decide about one FineTuneJob."""
    draft = Draft(job, now)
    if job.spec is None and not draft.has_failed:
        draft.refuse(Reason.INVALID_SPEC, job.problem)
    elif job.spec and not draft.has_failed:
        _decide(draft, job.spec, seen, settings)
        _settle(draft, job.spec, seen)
    if draft.has_failed:
        draft.stop(seen.attempts)
    return draft.plan(find_expiry(draft, job.spec, is_awaited=seen.is_awaited) if job.spec else None)


def _decide(draft: Draft, spec: FineTuneJobSpec, seen: Seen, settings: Settings) -> None:
    """Decide about a job that has not failed and whose spec can be read."""
    running = keep_clock(draft, spec, seen.attempts)
    if running and is_late(draft, spec) and not (running.stage is Stage.EXPORT and spec.serving):
        draft.fail(*explain_deadline(spec), running.stage)
    elif parse_uri(spec.model.uri).scheme == "finetunejob":
        _continue_from(draft, resolve_earlier(spec, seen.earlier))
    elif not (problem := _find_problem(draft, spec, seen, settings)):
        draft.conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
        _walk(draft, spec, seen, settings)
    elif problem[0] is Reason.CONFLICT or not draft.conditions.is_true(ConditionType.TRAINED):
        draft.refuse(*problem)
    else:
        draft.not_served(*problem)


def _settle(draft: Draft, spec: FineTuneJobSpec, seen: Seen) -> None:
    """Say what holds beside the stages: whether the job is suspended, and whether its result is still of use."""
    is_proven = draft.conditions.is_true(ConditionType.EVALUATED)
    if draft.has_failed:
        stop_clock(draft)
    elif spec.suspend:
        has_work = not (is_proven and _is_exported(draft, spec))
        pause(draft, seen.attempts, seen.leftover, has_work=has_work)
    else:
        resume(draft)
    retired = is_proven and is_retired(draft.job.name, seen.server, seen.newer_job, server_is_ours=seen.server_is_ours)
    draft.set_status(retired_time=(draft.status.retired_time or draft.now) if retired else None)


def _find_problem(draft: Draft, spec: FineTuneJobSpec, seen: Seen, settings: Settings) -> Problem | None:
    """Return why the job may not go on; what its data came from does not matter once it is there."""
    if seen.stray and not draft.conditions.is_true(ConditionType.EVALUATED):
        return Reason.CONFLICT, (
            f"Job {seen.stray} has lost its ownerReferences, and may run on: give them back, or delete it"
        )
    if not draft.conditions.is_true(ConditionType.DATASET_READY):
        problem = find_source_problem(spec.dataset, settings.sources.https_hosts)
        if problem:
            return problem
    return find_problem(spec, job_file(draft.job).base, seen.server, server_is_ours=seen.server_is_ours)


def _continue_from(draft: Draft, earlier: WarmStart | Problem) -> None:
    """Write down what the job begins with before anything is made from it: it never changes later."""
    if isinstance(earlier, WarmStart):
        draft.conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
        draft.set_status(warm_start=earlier)
        draft.wait(Stage.PREPARE, Reason.PREPARING, f"begins with the result of {earlier.job}")
        draft.look_again(REQUEUE_SOON_SECONDS)
    else:
        draft.refuse(*earlier)


def _walk(draft: Draft, spec: FineTuneJobSpec, seen: Seen, settings: Settings) -> None:
    """Go through the stages as far as they are done, and begin or await the next one."""
    begun = last_begun(seen.attempts, draft.status.attempts, draft.status.attempt_time, draft.now)
    draft.set_status(
        start_time=draft.status.start_time or begun,
        attempt_time=begun,
        method=f"{spec.method.name}/{spec.adapter.name}",
        attempts=count_begun(seen.attempts, draft.status.attempts),
        incumbent=recorded_incumbent(draft.status.incumbent, seen.attempts),
        evaluation_server=recorded_server(draft.status.evaluation_server, seen.attempts),
    )
    is_working = not (draft.conditions.is_true(ConditionType.EVALUATED) and _is_exported(draft, spec))
    if is_working and names_default_claim(draft.job) and not seen.has_default_claim:
        draft.children.append(build_claim(draft.job, settings))
    if is_working:
        draft.children += build_isolation(draft.job.namespace, settings.network)
    if spec.compute.nodes > 1 and not draft.conditions.is_true(ConditionType.TRAINED):
        draft.children.append(build_training_service(draft.job))
        if settings.network.isolate_jobs:
            draft.children.append(build_peers_policy(draft.job))
    for stage in _TO_THE_PROOF:
        if draft.conditions.is_true(STAGE_CONDITIONS[stage]):
            continue
        if stage is Stage.TRAIN and not _approve(draft, spec):
            return
        if not _take(draft, spec, stage, _next_step(draft, stage, spec, seen), seen, settings):
            return
    exported = _is_exported(draft, spec) or _export(draft, spec, seen, settings)
    end = deploy(draft, spec.serving, seen.server, seen.newer_job)
    if end and exported:
        draft.complete(*end)


def _next_step(draft: Draft, stage: Stage, spec: FineTuneJobSpec, seen: Seen) -> Step:
    """Return what follows from the stage's attempts, and from what holds the job back or ends it."""
    begun = draft.status.attempts.of(stage)
    step = next_step(stage, seen.attempts, begun, spec.retries, draft.now, draft.status.attempt_time)
    if isinstance(step, Done | GiveUp):
        return step
    if is_late(draft, spec):
        return GiveUp(*explain_deadline(spec))
    if spec.suspend:
        return Wait(*explain_pause(seen.attempts, seen.leftover))
    stopping = find_stopping(seen.attempts, seen.leftover)
    follows = isinstance(step, Begin) or step.reason is Reason.RETRYING
    return Wait(Reason.STOPPING, f"{stopping} ends first") if stopping and follows else step


def _is_exported(draft: Draft, spec: FineTuneJobSpec) -> bool:
    """Tell whether the results are wherever the job wants them."""
    return not (spec.output and spec.output.is_exported) or draft.conditions.is_true(ConditionType.EXPORTED)


def _export(draft: Draft, spec: FineTuneJobSpec, seen: Seen, settings: Settings) -> bool:
    """Export what is proven; when that fails for good, what serves goes on serving, though the job is not Ready."""
    step = _next_step(draft, Stage.EXPORT, spec, seen)
    if isinstance(step, GiveUp) and spec.serving:
        draft.stop(seen.attempts)
        draft.wait(Stage.EXPORT, step.reason, step.message)
        return False
    return _take(draft, spec, Stage.EXPORT, step, seen, settings)


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
        draft.set_status(stage=Phase.APPROVE)
    return verdict.approved


def _take(draft: Draft, spec: FineTuneJobSpec, stage: Stage, step: Step, seen: Seen, settings: Settings) -> bool:
    """Do what the step says; tell whether the stage is done and the next may follow."""
    match step:
        case Done(report):
            return take_over(draft, stage, report)
        case GiveUp(reason, message):
            draft.fail(reason, message, stage)
        case Begin(number):
            begin(draft, spec, stage, number, seen, settings)
        case Wait(reason, message, until):
            draft.wait(stage, reason or RUNNING[stage], message)
            if until is not None:
                draft.look_again(max((until - draft.now).total_seconds(), REQUEUE_SOON_SECONDS))
            elif stage is Stage.TRAIN and find_running(seen.attempts):
                draft.follow(seen.progress)
    return False
