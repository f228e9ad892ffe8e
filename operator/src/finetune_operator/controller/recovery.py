"""Finds again what somebody hid of a job's attempts: one that is not known would be made a second time."""

from finetune_api.conditions import ConditionType
from finetune_api.stage import Stage

from finetune_operator.controller.apply import Maker
from finetune_operator.controller.snapshot import Observer
from finetune_operator.kube.kinds import JOB, controller_uid
from finetune_operator.manifests.drift import mend_job
from finetune_operator.manifests.names import stage_job_name, stage_labels
from finetune_operator.state.child_jobs import Attempt, attempt_of
from finetune_operator.state.conditions import STAGE_CONDITIONS, true_conditions
from finetune_operator.state.views import JobView


async def recover(job: JobView, observer: Observer, maker: Maker) -> list[Attempt]:
    """Return a job's attempts, after what somebody changed or hid of them was put right."""
    await _mend(job, observer, maker)
    attempts = observer.attempts(job)
    open_stages = _open_stages(job)
    found = await _find_lost(job, attempts, open_stages, maker)
    heard = await _find_unheard(job, attempts, open_stages, maker)
    return observer.attempts(job) if found or heard else attempts


def _open_stages(job: JobView) -> list[Stage]:
    """Return the stages that are not done; none of a job that failed."""
    done = true_conditions(job.status.conditions)
    if ConditionType.FAILED in done:
        return []
    return [stage for stage, condition in STAGE_CONDITIONS.items() if condition not in done]


async def _mend(job: JobView, observer: Observer, maker: Maker) -> None:
    """Mend the Jobs of stages that somebody changed."""
    for child in observer.jobs(job):
        named = attempt_of(child)
        mended = mend_job(stage_labels(job, *named), child) if named else None
        if mended:
            await maker.merge(child, mended)


async def _find_lost(job: JobView, attempts: list[Attempt], open_stages: list[Stage], maker: Maker) -> bool:
    """Look for attempts that were begun and are not in the picture: one without its labels still runs."""
    known, found_any = {(one.stage, one.number) for one in attempts}, False
    for stage in open_stages if job.spec else ():
        number = job.status.attempts.of(stage)
        if not number or (stage, number) in known:
            continue
        found = await maker.cluster.find(JOB, job.namespace, stage_job_name(job, stage, number))
        if found is not None and controller_uid(found) == job.uid:
            await maker.label(found, stage_labels(job, stage, number))
            found_any = True
    return found_any


async def _find_unheard(job: JobView, attempts: list[Attempt], open_stages: list[Stage], maker: Maker) -> bool:
    """Look for the pods of an attempt that is over and whose pods are not known to have ended.

    One that was not heard of would be taken for one that is gone, and what it did would be done again.
    """
    last, heard_any = {one.stage: one for one in sorted(attempts, key=lambda one: one.number)}, False
    for stage in open_stages:
        attempt = last.get(stage)
        if attempt and attempt.finished and not attempt.pods_ended:
            for pod in await maker.cluster.pods_of(job.namespace, attempt.name):
                maker.remember(pod)
                heard_any = True
    return heard_any
