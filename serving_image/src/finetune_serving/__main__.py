"""`finetune-server serve|drain|evaluate`: the program of the serving image."""

import logging
import sys
from concurrent.futures.process import BrokenProcessPool

from finetune_api.conditions import Reason
from finetune_api.contract.commands import Drain, Evaluate, PodPaths, Serve, parse_server_arguments
from finetune_api.contract.exit_codes import find_failure
from finetune_api.contract.jobfile import JobDirectory, read_job_file
from finetune_api.contract.reports import StageReport, write_failure, write_report
from finetune_pod.fetching import FetchError
from finetune_pod.modelfiles import ModelFilesError
from openai import OpenAIError

from finetune_serving.adapters import AdapterRefusedError
from finetune_serving.gateway.drain import drain

_LOG = logging.getLogger("finetune_serving")


def main() -> None:
    """Run one command and exit with an ExitCode of finetune_api.contract.exit_codes."""
    paths, command = parse_server_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    match command:
        case Serve():
            _serve(command, paths)
        case Drain():
            drain(paths.root, command.port, command.longest)
        case Evaluate():
            report = _evaluate(command, paths)
            _LOG.info("%s: %s", report.reason, report.message)
            write_report(report, paths.termination_log)
            sys.exit(report.exit_code)


def _serve(command: Serve, paths: PodPaths) -> None:
    from finetune_serving.gateway.serve import serve

    try:
        serve(command, paths)
    except (ModelFilesError, FetchError) as error:
        sys.stderr.write(f"{error}\n")
        write_failure(str(error), paths.termination_log)
        sys.exit(find_failure(error.reason or Reason.MODEL_NOT_FOUND).exit_code)


def _evaluate(command: Evaluate, paths: PodPaths) -> StageReport:
    from finetune_serving.evaluation.stage import evaluate

    try:
        job = read_job_file(paths.job)
        directory = JobDirectory.of(job, paths.root)
        return evaluate(job, directory, command.artifact, command.incumbent, command.server_url)
    except FileNotFoundError as error:
        reason = Reason.PREPARED_DATA_GONE
        message = f"{error.filename} is missing, the claim may have been emptied: create a new FineTuneJob"
    except AdapterRefusedError as error:
        reason, message = Reason.ADAPTER_REFUSED, f"the adapter: {error}"
    except BrokenProcessPool:
        reason = Reason.OUT_OF_MEMORY
        message = "the process with the model was killed, probably for memory: raise compute.resources.memory"
    except OpenAIError as error:
        reason = Reason.EVALUATION_FAILED
        message = f"requests to {command.server_url} fail: {error}"
    except (ModelFilesError, FetchError) as error:
        reason, message = error.reason or Reason.MODEL_NOT_FOUND, str(error)
    except Exception as error:  # noqa: BLE001 - every failure becomes a report
        _LOG.exception("the evaluation failed")
        is_out_of_memory = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
        reason = Reason.OUT_OF_MEMORY if is_out_of_memory else Reason.EVALUATION_FAILED
        message = f"{type(error).__name__}: {error}"
    return StageReport(outcome="Failed", reason=reason, message=message[:1024])


if __name__ == "__main__":
    main()
