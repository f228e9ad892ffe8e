"""Repairs the attempt Jobs of a FineTuneJob that someone edited or hid: an unknown attempt would be started twice."""

from finetune_api.conditions import ConditionType
from finetune_api.stage import Stage

from finetune_operator.controller.apply import Applier
from finetune_operator.controller.snapshot import SnapshotReader
from finetune_operator.kube.kinds import JOB, controller_uid
from finetune_operator.manifests.drift import build_job_patch
from finetune_operator.manifests.names import stage_job_name, stage_labels
from finetune_operator.state.child_jobs import Attempt, attempt_of
from finetune_operator.state.conditions import STAGE_CONDITIONS, true_conditions
from finetune_operator.state.views import JobView


async def recover_attempts(job: JobView, reader: SnapshotReader, applier: Applier) -> list[Attempt]:
    """Repair the attempts of a job in the cluster and in the cache, and return all of them."""
    await _patch_edited(job, reader, applier)
    attempts = reader.read_attempts(job)
    stages = _unfinished_stages(job)
    has_adopted = await _adopt_hidden(job, attempts, stages, applier)
    has_reloaded = await _reload_pods(job, attempts, stages, applier)
    return reader.read_attempts(job) if has_adopted or has_reloaded else attempts


def _unfinished_stages(job: JobView) -> list[Stage]:
    """Return the stages that are not done; none if the job has failed."""
    done = true_conditions(job.status.conditions)
    if ConditionType.FAILED in done:
        return []
    return [stage for stage, condition in STAGE_CONDITIONS.items() if condition not in done]


async def _patch_edited(job: JobView, reader: SnapshotReader, applier: Applier) -> None:
    """Revert the edits of attempt Jobs."""
    for child in reader.read_jobs(job):
        stage_and_number = attempt_of(child)
        patch = build_job_patch(stage_labels(job, *stage_and_number), child) if stage_and_number else None
        if patch:
            await applier.patch(child, patch)


async def _adopt_hidden(job: JobView, attempts: list[Attempt], stages: list[Stage], applier: Applier) -> bool:
    """Re-adopt attempt Jobs whose labels were removed: they still run. Return whether there were any."""
    known, has_adopted = {(attempt.stage, attempt.number) for attempt in attempts}, False
    for stage in stages if job.spec else ():
        number = job.status.attempts.of(stage)
        if not number or (stage, number) in known:
            continue
        hidden = await applier.client.get(JOB, job.namespace, stage_job_name(job, stage, number))
        if hidden is not None and controller_uid(hidden) == job.uid:
            await applier.restore_labels(hidden, stage_labels(job, stage, number))
            has_adopted = True
    return has_adopted


async def _reload_pods(job: JobView, attempts: list[Attempt], stages: list[Stage], applier: Applier) -> bool:
    """Read the pods of a finished attempt whose cached pods have not all ended. Return whether there were any.

    The cache may lack their last events; without them the attempt would count as disrupted and be repeated.
    """
    last = {attempt.stage: attempt for attempt in sorted(attempts, key=lambda attempt: attempt.number)}
    has_reloaded = False
    for stage in stages:
        attempt = last.get(stage)
        if attempt and attempt.finished and not attempt.pods_ended:
            for pod in await applier.client.list_pods(job.namespace, attempt.name):
                applier.update_cache(pod)
                has_reloaded = True
    return has_reloaded
