"""`finetune-server serve|drain|evaluate`: what the serving image runs."""

import argparse
import logging
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from finetune_api.artifact import Artifact, Incumbent
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, read_job_file
from finetune_api.contract.mounts import JOB_FILE, ROUTES_FILE, SCRATCH
from finetune_api.contract.reports import ExitCode, StageReport, write_report
from finetune_api.meta import SERVER_PORT
from finetune_api.modelserver import EngineSettings
from finetune_pod.fetching import FetchError
from finetune_pod.modelfiles import ModelFilesError, UnsafeModelError
from openai import OpenAIError

from finetune_serving.adapters import AdapterRefusedError
from finetune_serving.gateway.drain import drain

_LOG = logging.getLogger("finetune_serving")


def main() -> None:
    """Run one command; exit with a code of finetune_api.contract.reports.ExitCode."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    if arguments.command == "serve":
        _serve(arguments)
        return
    if arguments.command == "drain":
        drain(arguments.root, arguments.port, arguments.longest)
        return
    report, code = _evaluate(arguments)
    _LOG.info("%s: %s", report.reason, report.message)
    write_report(report, arguments.termination_log)
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="finetune-server", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/"), help="directory below which claims are mounted")
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="serve the base model and the adapters of the routes file")
    server.add_argument("--model-uri", required=True, help="the base model: hf://, s3:// or pvc://")
    server.add_argument("--revision", help="branch, tag or commit on the hub")
    server.add_argument("--engine", default="{}", help="settings of vLLM, as JSON like engine of a ModelServer")
    server.add_argument("--max-rank", type=int, required=True, help="largest rank of an adapter")
    server.add_argument("--max-adapters", type=int, required=True, help="adapters loaded at a time")
    server.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 - a pod's own
    server.add_argument("--port", type=int, default=SERVER_PORT, help="port to listen on")
    server.add_argument("--routes", type=Path, default=Path(ROUTES_FILE), help="the routes file")
    server.add_argument("--model-cache", type=Path, default=Path(SCRATCH), help="where a model that is fetched is kept")
    server.add_argument("--keys", default="", help="directory with API keys; without it none is asked for")
    drainer = commands.add_parser("drain", help="wait until nobody asks the server on this machine any more")
    drainer.add_argument("--port", type=int, default=SERVER_PORT, help="port of the server")
    drainer.add_argument("--longest", type=float, required=True, help="seconds after which to wait no longer")
    judge = commands.add_parser("evaluate", help="compare base and tuned model on the held-out data")
    judge.add_argument("--job", type=Path, default=Path(JOB_FILE), help="the FineTuneJob as JSON")
    judge.add_argument("--artifact", required=True, help="what the training made, as JSON")
    judge.add_argument("--server-url", default="", help="a server that hosts all versions; without it vLLM is loaded")
    judge.add_argument("--incumbent", default="{}", help="what serves now, as JSON: the job and its artifact")
    judge.add_argument("--termination-log", default="/dev/termination-log", help="file for the report")
    return parser


def _serve(arguments: argparse.Namespace) -> None:
    from finetune_serving.gateway.serve import Serve, serve

    options = Serve(
        model_uri=arguments.model_uri,
        revision=arguments.revision,
        engine=EngineSettings.model_validate_json(arguments.engine),
        max_rank=arguments.max_rank,
        max_adapters=arguments.max_adapters,
        port=arguments.port,
        host=arguments.host,
        root=arguments.root,
        routes=arguments.routes,
        keys=arguments.keys,
        model_cache=arguments.model_cache,
    )
    try:
        serve(options)
    except ModelFilesError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(ExitCode.BAD_CONFIG)
    except FetchError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.code)


def _evaluate(arguments: argparse.Namespace) -> tuple[StageReport, ExitCode]:
    from finetune_serving.evaluation.stage import evaluate

    try:
        job = read_job_file(arguments.job)
        tuned = Artifact.model_validate_json(arguments.artifact)
        incumbent = Incumbent.model_validate_json(arguments.incumbent)
        return evaluate(job, JobDirectory.of(job, arguments.root), tuned, incumbent, arguments.server_url), ExitCode.OK
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
        message = f"{arguments.server_url} does not answer: {error}"
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
