"""Starts the training with `accelerate launch`, one process for each device, and waits for its report."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.jobfile import JobFile
from finetune_api.reports import ExitCode, StageReport, parse_report

from finetune_trainer.failures import StageError
from finetune_trainer.schedule import choose_batches

_SHUTDOWN_SECONDS = 100
"""Torch elastic's time between SIGTERM and SIGKILL; below the pod's grace period."""


def launch_training(job: JobFile, job_file: Path, root: Path, attempt: int, metrics_port: int) -> StageReport:
    """Run the training in processes of its own and return the report of the first that ended.

    Raises:
        StageError: the batch cannot be divided, or no process left a report.
    """
    gpus = job.spec.compute.resources.gpus
    try:
        choose_batches(job.spec, max(gpus, 1))
    except ValueError as error:
        raise StageError(ExitCode.BAD_CONFIG, Reason.INVALID_SPEC, str(error)) from None
    with tempfile.TemporaryDirectory() as scratch:
        report_path = Path(scratch) / "report.json"
        command = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--num_machines=1",
            f"--num_processes={max(gpus, 1)}",
            f"--mixed_precision={'bf16' if gpus else 'no'}",
            "--dynamo_backend=no",
            *(["--multi_gpu"] if gpus > 1 else []),
            *([] if gpus else ["--cpu", f"--num_cpu_threads_per_process={_threads()}"]),
            "--module",
            "finetune_trainer.training",
            f"--job={job_file}",
            f"--root={root}",
            f"--attempt={attempt}",
            f"--metrics-port={metrics_port}",
            f"--report={report_path}",
        ]
        env = os.environ | {
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_SHUTDOWN_SECONDS),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        process = subprocess.Popen(command, env=env, start_new_session=True)
        _forward_stop(process)
        process.wait()
        _wait_for_group(process.pid)
        report = parse_report(report_path.read_text()) if report_path.exists() else None
    if report is None:
        raise StageError(
            ExitCode.SOFTWARE,
            Reason.TRAINING_FAILED,
            f"the training ended with code {process.returncode} and left no report: see the log above",
        )
    return report


def _forward_stop(process: subprocess.Popen[bytes]) -> None:
    """Hand SIGTERM to every process of the training, whose own handlers save a checkpoint."""

    def forward(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, forward)


def _wait_for_group(group: int) -> None:
    """Wait for workers that outlive their launcher: it ends at once on SIGTERM, they save a checkpoint first."""
    while True:
        try:
            # As a container's first process we inherit the orphans, and must take leave of them.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-group, os.WNOHANG)
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)


def _threads() -> int:
    return max(1, len(os.sched_getaffinity(0)))
