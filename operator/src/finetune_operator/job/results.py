"""What a stage reports once it is done, taken over into the status. Pure."""

from finetune_api.conditions import Reason
from finetune_api.contract.reports import StageReport
from finetune_api.jobstatus import TrainingProgress
from finetune_api.stage import Stage

from finetune_operator.job.draft import Draft
from finetune_operator.state.conditions import STAGE_CONDITIONS


def take_over(draft: Draft, stage: Stage, report: StageReport) -> bool:
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
                progress=TrainingProgress(
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
