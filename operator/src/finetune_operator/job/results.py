"""Copies the results of a stage to the status. No I/O."""

from finetune_api.conditions import Reason
from finetune_api.contract.reports import StageReport
from finetune_api.jobstatus import TrainingProgress
from finetune_api.modelserver import Model
from finetune_api.stage import Stage
from finetune_api.summaries import DatasetSummary

from finetune_operator.job.plan_builder import PlanBuilder
from finetune_operator.state.conditions import STAGE_CONDITIONS


def record_report(builder: PlanBuilder, stage: Stage, report: StageReport) -> bool:
    """Record the report of a stage that succeeded; return whether the next stage may start."""
    reason = Reason.SUCCEEDED
    match stage:
        case Stage.PREPARE if report.dataset:
            builder.set_status(dataset=report.dataset, hyperparameters=report.hyperparameters, estimate=report.estimate)
            message = report.dataset.describe()
        case Stage.TRAIN if report.training and report.artifact:
            steps = report.training.steps
            builder.set_status(
                training=report.training,
                artifact=report.artifact,
                progress=TrainingProgress(
                    percentage=100,
                    step=steps,
                    steps=steps,
                    remaining_seconds=0,
                    loss=round(report.training.loss, 4),
                    text="100%",
                    update_time=builder.now,
                ),
            )
            message = f"{steps} steps, loss {report.training.loss:.4f}"
        case Stage.EVALUATE if report.evaluation:
            builder.set_status(evaluation=report.evaluation)
            reason, message = report.evaluation.reason, "; ".join(gate.message for gate in report.evaluation.gates)
            if not report.evaluation.passed:
                builder.set_failed(reason, message, stage)
                return False
        case Stage.EXPORT if report.export:
            builder.set_status(export=report.export)
            message = report.export.describe()
        case _:
            message = f"the report of {stage} is incomplete: check that all images have the same version"
            builder.set_failed(Reason.CONFLICT, message, stage)
            return False
    builder.conditions.set(STAGE_CONDITIONS[stage], status=True, reason=reason, message=message)
    return True


def find_template_digest(base: Model, dataset: DatasetSummary | None) -> str | None:
    """Return the digest of the `model.chatTemplate` that `prepare` read; None before, or if the base model has none.

    Args:
        base: the base model of a job; that of a merged model or of one trained as a whole contains its template.
        dataset: the summary in the status of the job.
    """
    return dataset.chat_template if dataset and base.chat_template else None
