"""`finetune-server serve|drain|evaluate`: what the serving image runs."""

import logging
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.contract.commands import Drain, Evaluate, PodPaths, Serve, parse_server_arguments
from finetune_api.contract.jobfile import JobDirectory, read_job_file
from finetune_api.contract.reports import ExitCode, StageReport, write_report
from finetune_pod.fetching import FetchError
from finetune_pod.modelfiles import ModelFilesError, UnsafeModelError
from openai import OpenAIError

from finetune_serving.adapters import AdapterRefusedError
from finetune_serving.gateway.drain import drain

_LOG = logging.getLogger("finetune_serving")


def main() -> None:
    """Run one command; exit with a code of finetune_api.contract.reports.ExitCode."""
    paths, command = parse_server_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    match command:
        case Serve():
            _serve(command, paths.root)
        case Drain():
            drain(paths.root, command.port, command.longest)
        case Evaluate():
            report, code = _evaluate(command, paths)
            _LOG.info("%s: %s", report.reason, report.message)
            write_report(report, paths.termination_log)
            sys.exit(code)


def _serve(command: Serve, root: Path) -> None:
    from finetune_serving.gateway.serve import serve

    try:
        serve(command, root)
    except ModelFilesError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(ExitCode.BAD_CONFIG)
    except FetchError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.code)


def _evaluate(command: Evaluate, paths: PodPaths) -> tuple[StageReport, ExitCode]:
    from finetune_serving.evaluation.stage import evaluate

    try:
        job = read_job_file(paths.job)
        directory = JobDirectory.of(job, paths.root)
        return evaluate(job, directory, command.artifact, command.incumbent, command.server_url), ExitCode.OK
    except FileNotFoundError as error:
        reason, code = Reason.PREPARED_DATA_GONE, ExitCode.NOT_FOUND
        message = f"{error.filename} is missing: was the claim emptied? Make a new FineTuneJob"
    except AdapterRefusedError as error:
        reason, code, message = Reason.ADAPTER_REFUSED, ExitCode.BAD_CONFIG, f"the adapter: {error}"
    except BrokenProcessPool:
        reason, code = Reason.OUT_OF_MEMORY, ExitCode.OUT_OF_MEMORY
        message = "the process with the model was killed: raise compute.resources.memory"
    except ModelFilesError as error:
        reason = Reason.MODEL_UNSAFE if isinstance(error, UnsafeModelError) else Reason.MODEL_UNSUPPORTED
        code, message = ExitCode.BAD_CONFIG, str(error)
    except OpenAIError as error:
        reason, code = Reason.EVALUATION_FAILED, ExitCode.TRANSIENT
        message = f"{command.server_url} does not answer: {error}"
    except FetchError as error:
        reason, code, message = error.reason_of(Reason.MODEL_NOT_FOUND), error.code, str(error)
    except Exception as error:  # noqa: BLE001 - every failure becomes a report
        _LOG.exception("the evaluation failed")
        is_full = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
        reason = Reason.OUT_OF_MEMORY if is_full else Reason.EVALUATION_FAILED
        code = ExitCode.OUT_OF_MEMORY if is_full else ExitCode.SOFTWARE
        message = f"{type(error).__name__}: {error}"
    return StageReport(outcome="Failed", reason=reason, message=message[:1024]), code


if __name__ == "__main__":
    main()
