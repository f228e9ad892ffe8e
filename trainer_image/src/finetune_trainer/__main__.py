"""`finetune-trainer prepare|train|export`: the stages of a FineTuneJob that the trainer image runs."""

import logging
import sys

from finetune_api.budget import DEFAULT_CURRENCY
from finetune_api.conditions import Reason
from finetune_api.contract.commands import Export, PodPaths, Prepare, Train, TrainerCommand, parse_trainer_arguments
from finetune_api.contract.jobfile import JobDirectory, read_job_file
from finetune_api.contract.reports import StageReport, write_report

from finetune_trainer.failures import StageError, diagnose

_LOG = logging.getLogger("finetune_trainer")
_FALLBACK_REASONS: dict[type, Reason] = {
    Prepare: Reason.PREPARE_FAILED,
    Train: Reason.TRAINING_FAILED,
    Export: Reason.EXPORT_FAILED,
}
"""The reason of a failure that nothing else explains."""


def main() -> None:
    """Run one stage, write its report, and exit with the code that follows from the report."""
    paths, command = parse_trainer_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    report = _run(paths, command)
    _LOG.info("%s: %s", report.reason, report.message)
    write_report(report, paths.termination_log)
    sys.exit(report.exit_code)


def _run(paths: PodPaths, command: TrainerCommand) -> StageReport:
    """Run the stage and return its report, also if it fails."""
    try:
        return _run_stage(paths, command)
    except Exception as error:  # noqa: BLE001 - every failure becomes a report
        failure = diagnose(error, _FALLBACK_REASONS[type(command)])
        if failure is not error:
            _LOG.exception("the stage failed with an unexpected error")
        return failure.to_report()


def _run_stage(paths: PodPaths, command: TrainerCommand) -> StageReport:
    try:
        job = read_job_file(paths.job)
    except ValueError as error:
        raise StageError(Reason.INVALID_SPEC, str(error)) from None
    directory = JobDirectory.of(job, paths.root)
    match command:
        case Prepare():
            from finetune_trainer.prepare.stage import prepare

            return prepare(job, directory, command.gpu, command.currency or DEFAULT_CURRENCY)
        case Train():
            from finetune_trainer.train.launch import launch_training

            return launch_training(job, paths.job, directory, command.attempt, command.metrics_port, command.leader)
        case Export():
            from finetune_trainer.export.stage import export

            return export(job, directory, command.artifact)


if __name__ == "__main__":
    main()
