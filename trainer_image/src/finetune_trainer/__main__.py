"""`finetune-trainer prepare|train|export`: the stages of a FineTuneJob that the trainer image runs."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from finetune_api.artifact import Artifact
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, describe_errors, read_job_file
from finetune_api.contract.mounts import JOB_FILE
from finetune_api.contract.reports import ExitCode, StageReport, write_report
from finetune_api.estimate import GpuKind
from finetune_api.meta import METRICS_PORT
from finetune_api.model import ApiModel
from pydantic import ValidationError

from finetune_trainer.failures import StageError, diagnose

_LOG = logging.getLogger("finetune_trainer")
_Model = TypeVar("_Model", bound=ApiModel)
_FAILED = {"prepare": Reason.PREPARE_FAILED, "train": Reason.TRAINING_FAILED, "export": Reason.EXPORT_FAILED}
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
    parser = argparse.ArgumentParser(prog="finetune-trainer", description=__doc__)
    parser.add_argument("--job", type=Path, default=Path(JOB_FILE), help="the FineTuneJob as JSON")
    parser.add_argument("--root", type=Path, default=Path("/"), help="directory below which claims are mounted")
    parser.add_argument("--termination-log", default="/dev/termination-log", help="file for the report of the stage")
    stages = parser.add_subparsers(dest="stage", required=True)
    preparing = stages.add_parser("prepare", help="check and split the data, estimate what the training will take")
    preparing.add_argument(
        "--gpu", type=_read(GpuKind), help="the GPU of the training, as JSON: memory, tflops, hourPrice"
    )
    preparing.add_argument("--currency", default="USD", help="that of hourPrice")
    training = stages.add_parser("train", help="train the adapter")
    training.add_argument("--attempt", type=int, required=True, help="number of the attempt, from 1")
    training.add_argument("--leader", default="localhost", help="DNS name of the first node, with several nodes")
    training.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="port for Prometheus")
    exporting = stages.add_parser("export", help="merge and copy what was proven, as output asks")
    exporting.add_argument("--artifact", type=_read(Artifact), required=True, help="what was proven, as JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    report, code = _run(arguments)
    _LOG.info("%s: %s", report.reason, report.message)
    write_report(report, arguments.termination_log)
    sys.exit(code)


def _read(kind: type[_Model]) -> Callable[[str], _Model]:
    """Return the type of an argument that is given as JSON."""

    def read(text: str) -> _Model:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(describe_errors(error)) from None

    return read


def _run(arguments: argparse.Namespace) -> tuple[StageReport, ExitCode]:
    """Run the stage and return its report with the exit code that goes with it."""
    try:
        try:
            job = read_job_file(arguments.job)
        except ValueError as error:
            raise StageError(ExitCode.BAD_CONFIG, Reason.INVALID_SPEC, str(error)) from None
        directory = JobDirectory.of(job, arguments.root)
        if arguments.stage == "prepare":
            from finetune_trainer.prepare.stage import prepare

            report = prepare(job, directory, arguments.gpu, arguments.currency)
        elif arguments.stage == "export":
            from finetune_trainer.export.stage import export

            report = export(job, directory, arguments.artifact)
        else:
            from finetune_trainer.train.launch import launch_training

            report = launch_training(
                job, arguments.job, directory, arguments.attempt, arguments.metrics_port, arguments.leader
            )
    except Exception as error:  # noqa: BLE001 - every failure becomes a report
        failure = diagnose(error, _FAILED[arguments.stage])
        if failure is not error:
            _LOG.exception("the stage failed")
        return StageReport(outcome="Failed", reason=failure.reason, message=str(failure)[:1024]), failure.code
    if report.outcome == "Succeeded":
        return report, ExitCode.OK
    return report, _EXIT_CODES.get(report.reason, ExitCode.SOFTWARE)


if __name__ == "__main__":
    main()
