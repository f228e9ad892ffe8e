"""`finetune-trainer prepare|train|export`: the stages of a FineTuneJob that the trainer image runs."""

import logging
import sys

from finetune_api.budget import DEFAULT_CURRENCY
from finetune_api.conditions import Reason
from finetune_api.contract.commands import Export, PodPaths, Prepare, Train, TrainerCommand, parse_trainer_arguments
from finetune_api.contract.jobfile import JobDirectory, read_job_file
from finetune_api.contract.reports import ExitCode, StageReport, write_report

from finetune_trainer.failures import StageError, diagnose

_LOG = logging.getLogger("finetune_trainer")
_FAILED: dict[type, Reason] = {
    Prepare: Reason.PREPARE_FAILED,
    Train: Reason.TRAINING_FAILED,
    Export: Reason.EXPORT_FAILED,
}
_EXIT_CODES = {
    Reason.DATASET_INVALID: ExitCode.BAD_DATA,
    Reason.DATASET_NOT_FOUND: ExitCode.NOT_FOUND,
    Reason.PREPARED_DATA_GONE: ExitCode.NOT_FOUND,
    Reason.MODEL_NOT_FOUND: ExitCode.NOT_FOUND,
    Reason.OUTPUT_NOT_FOUND: ExitCode.NOT_FOUND,
    Reason.MODEL_UNSUPPORTED: ExitCode.BAD_CONFIG,
    Reason.MODEL_UNSAFE: ExitCode.BAD_CONFIG,
    Reason.MODEL_DAMAGED: ExitCode.BAD_CONFIG,
    Reason.TEMPLATE_INVALID: ExitCode.BAD_CONFIG,
    Reason.INVALID_SPEC: ExitCode.BAD_CONFIG,
    Reason.NOT_SERVABLE: ExitCode.BAD_CONFIG,
    Reason.GPU_TOO_SMALL: ExitCode.BAD_CONFIG,
    Reason.ACCESS_DENIED: ExitCode.ACCESS_DENIED,
    Reason.TERMS_NOT_ACCEPTED: ExitCode.ACCESS_DENIED,
    Reason.VOLUME_ACCESS_DENIED: ExitCode.ACCESS_DENIED,
    Reason.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
    Reason.GPU_OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
    Reason.STORAGE_FULL: ExitCode.STORAGE_FULL,
    Reason.SOURCE_UNREACHABLE: ExitCode.TRANSIENT,
    Reason.RATE_LIMITED: ExitCode.TRANSIENT,
    Reason.RETRYING: ExitCode.STOPPED,
}


def main() -> None:
    """Run one stage; exit with a code of finetune_api.contract.reports.ExitCode."""
    paths, command = parse_trainer_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    report, code = _run(paths, command)
    _LOG.info("%s: %s", report.reason, report.message)
    write_report(report, paths.termination_log)
    sys.exit(code)


def _run(paths: PodPaths, command: TrainerCommand) -> tuple[StageReport, ExitCode]:
    """Run the stage and return its report with the exit code that goes with it."""
    try:
        try:
            job = read_job_file(paths.job)
        except ValueError as error:
            raise StageError(ExitCode.BAD_CONFIG, Reason.INVALID_SPEC, str(error)) from None
        directory = JobDirectory.of(job, paths.root)
        match command:
            case Prepare():
                from finetune_trainer.prepare.stage import prepare

                report = prepare(job, directory, command.gpu, command.currency or DEFAULT_CURRENCY)
            case Export():
                from finetune_trainer.export.stage import export

                report = export(job, directory, command.artifact)
            case Train():
                from finetune_trainer.train.launch import launch_training

                report = launch_training(
                    job, paths.job, directory, command.attempt, command.metrics_port, command.leader
                )
    except Exception as error:  # noqa: BLE001 - every failure becomes a report
        failure = diagnose(error, _FAILED[type(command)])
        if failure is not error:
            _LOG.exception("the stage failed")
        return StageReport(outcome="Failed", reason=failure.reason, message=str(failure)[:1024]), failure.code
    if report.outcome == "Succeeded":
        return report, ExitCode.OK
    return report, _EXIT_CODES.get(report.reason, ExitCode.SOFTWARE)


if __name__ == "__main__":
    main()
