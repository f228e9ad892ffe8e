"""Begins an attempt at a stage, where the namespace has room for it. Pure."""

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobstatus import Room
from finetune_api.stage import Stage

from finetune_operator.job.acceptance import Problem
from finetune_operator.job.deadlines import start_clock
from finetune_operator.job.draft import Draft
from finetune_operator.job.evaluation import choose_server
from finetune_operator.job.quota import find_excess, find_shortage, gpus_of, needs_place
from finetune_operator.job.snapshot import Seen
from finetune_operator.manifests.stages import build_stage_job
from finetune_operator.settings import Settings
from finetune_operator.state.views import JobView

RUNNING = {
    Stage.PREPARE: Reason.PREPARING,
    Stage.TRAIN: Reason.TRAINING,
    Stage.EVALUATE: Reason.EVALUATING,
    Stage.EXPORT: Reason.EXPORTING,
}
"""Why a stage's condition does not hold yet while an attempt is on its way."""


def begin(draft: Draft, spec: FineTuneJobSpec, stage: Stage, number: int, seen: Seen, settings: Settings) -> None:
    """Add the Job of an attempt to what should exist, or say what the job waits for."""
    without = draft.status
    if stage is Stage.EVALUATE:
        draft.set_status(
            incumbent=draft.status.incumbent or seen.incumbent,
            evaluation_server=choose_server(draft, seen.server, number, is_busy=seen.server_is_busy),
        )
    view = JobView(**{**vars(draft.job), "status": draft.status})
    child = build_stage_job(view, stage, number, settings)
    gpus = gpus_of(child, settings.gpu.resource_name)
    problem = _find_problem(draft, spec, gpus, seen, settings)
    if problem:
        # What is chosen at the beginning is chosen when it begins.
        draft.status = without.model_copy(update={"waiting_for": draft.status.waiting_for})
        draft.wait(stage, *problem)
        return
    draft.children.append(child)
    draft.set_status(
        start_time=draft.status.start_time or draft.now,
        attempt_time=draft.now,
        attempts=draft.status.attempts.with_count(stage, number),
        progress=None if stage is Stage.TRAIN and number == 1 else draft.status.progress,
    )
    if not child["spec"].get("suspend"):
        start_clock(draft, spec)
    draft.wait(stage, RUNNING[stage], f"attempt {number}")


def _find_problem(draft: Draft, spec: FineTuneJobSpec, gpus: int, seen: Seen, settings: Settings) -> Problem | None:
    """Return why the limits of the namespace let an attempt with so many GPUs not begin."""
    job = draft.job
    limit = settings.limits.of(job.namespace)
    training = (
        0 if draft.conditions.is_true(ConditionType.TRAINED) else spec.compute.nodes * spec.compute.resources.gpus
    )
    excess = find_excess(job.namespace, limit, max(gpus, training))
    if excess:
        return excess
    wants = Room(jobs=int(needs_place(job.status)), gpus=gpus)
    turn = (-spec.priority, job.created, job.name)
    shortage = find_shortage(job.namespace, limit, turn, wants, seen.others)
    if shortage:
        draft.set_status(waiting_for=wants)
    return shortage
