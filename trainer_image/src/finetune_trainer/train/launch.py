"""Starts the training's processes on this node, and waits for their report."""

import atexit
import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from finetune_api.compute import Compute
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.reports import StageReport, parse_report
from finetune_api.summaries import ChosenHyperparameters

from finetune_trainer.failures import StageError
from finetune_trainer.train.micro_batch import choose_batch, read_micro_batch

_SHUTDOWN_SECONDS = 100
"""Torch elastic's time between SIGTERM and SIGKILL; below the pod's grace period."""
_MEETING_PORT = 29400
_NOTICE_SECONDS = 15
"""Time for a smaller micro-batch, chosen by another node, to be seen on the shared volume."""


def launch_training(
    job: JobFile, job_file: Path, directory: JobDirectory, attempt: int, metrics_port: int, leader: str
) -> StageReport:
    """Train in processes of their own; with a smaller micro-batch again when GPU memory ran out.

    Args:
        job: the FineTuneJob.
        job_file: its file.
        directory: its directory.
        attempt: number of the attempt.
        metrics_port: port for Prometheus.
        leader: DNS name of the first node, where the processes of several nodes meet.

    Raises:
        StageError: the batch cannot be divided, the data is gone, or no process left a report.
    """
    tried = choose_batch(job.spec, directory)
    while True:
        # Not a TemporaryDirectory: that would go as soon as a forked process ends.
        scratch = Path(tempfile.mkdtemp())
        try:
            report_path = scratch / "report.json"
            arguments = [
                f"--job={job_file}",
                f"--root={directory.root}",
                f"--attempt={attempt}",
                f"--metrics-port={metrics_port}",
                f"--report={report_path}",
            ]
            code = _run(arguments, job.spec.compute, leader, f"{attempt}-{tried.micro_batch_size}")
            report = parse_report(report_path.read_text()) if report_path.exists() else None
        finally:
            shutil.rmtree(scratch)
        smaller = _find_smaller(directory.checkpoints, tried, job.spec.compute) if code else None
        if smaller:
            tried = smaller
            continue
        if report is None and code == -signal.SIGTERM:
            raise StageError(Reason.RETRYING, "stopped before its first step: nothing is lost")
        if report is None:
            raise StageError(
                Reason.TRAINING_FAILED,
                f"the training ended with code {code} and left no report: see the log above",
            )
        return report


def _run(arguments: list[str], compute: Compute, leader: str, meeting: str) -> int:
    """Run the processes of this node to their end; SIGTERM reaches every one of them, and they save a checkpoint."""
    environment = _build_environment(compute)
    if compute.processes == 1:
        group, wait = _start_alone(arguments, environment)
    else:
        group, wait = _start_elastic(arguments, environment, compute, leader, meeting)
    _forward_stop(group)
    code = wait()
    _wait_for_group(group)
    return code


def _build_environment(compute: Compute) -> dict[str, str]:
    return {
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_SHUTDOWN_SECONDS),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "true" if compute.processes_on_node == 1 else "false",
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // compute.processes_on_node)),
        # Threads that spin while they wait take the cores from whatever else runs on the node.
        "OMP_WAIT_POLICY": "PASSIVE",
        # Without these oneMKL's sums may differ in their last bits from one run to the next
        # (its developer guide, "Reproducibility Conditions"), and a training that was resumed from one that was not.
        "MKL_CBWR": "AUTO",
        "MKL_DYNAMIC": "FALSE",
    }


def _start_alone(arguments: list[str], environment: dict[str, str]) -> tuple[int, Callable[[], int]]:
    """Fork the only process, which needs no torch elastic; return its process group and how to wait for its code."""
    process = multiprocessing.get_context("fork").Process(target=_train, args=(arguments, environment))
    process.start()
    group = int(process.pid or 0)
    # Here and in the process itself: whichever comes first, a signal to the group finds it.
    with contextlib.suppress(OSError):
        os.setpgid(group, group)

    def wait() -> int:
        process.join()
        return process.exitcode or 0

    return group, wait


def _train(arguments: list[str], environment: dict[str, str]) -> None:
    """Train in this process, which was just forked; what reads the environment is imported after it."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ |= environment
    from finetune_trainer.train.training import main

    try:
        main(arguments)
    finally:
        # Trackers tell their servers how a run ended when Python ends; multiprocessing ends without that before 3.14.
        atexit._run_exitfuncs()  # noqa: SLF001


def _start_elastic(
    arguments: list[str], environment: dict[str, str], compute: Compute, leader: str, meeting: str
) -> tuple[int, Callable[[], int]]:
    """Start several processes by torch elastic; return their process group and how to wait for their code."""
    if compute.nodes == 1:
        where = ["--standalone"]
    else:
        where = ["--rdzv-backend=c10d", f"--rdzv-endpoint={leader}:{_MEETING_PORT}", f"--rdzv-id={meeting}"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={compute.nodes}",
        f"--nproc-per-node={compute.processes_on_node}",
        "--max-restarts=0",
        *where,
        "--module",
        "finetune_trainer.train.training",
        *arguments,
    ]
    process = subprocess.Popen(command, env=os.environ | environment, start_new_session=True)
    return process.pid, process.wait


def _find_smaller(checkpoints: Path, tried: ChosenHyperparameters, compute: Compute) -> ChosenHyperparameters | None:
    """Return the smaller micro-batch that some node has chosen; what another one wrote takes a moment to be seen."""
    until = time.monotonic() + (_NOTICE_SECONDS if compute.nodes > 1 else 0)
    while True:
        smaller = read_micro_batch(checkpoints, tried)
        if smaller.micro_batch_size < tried.micro_batch_size:
            return smaller
        if time.monotonic() >= until:
            return None
        time.sleep(0.5)


def _forward_stop(group: int) -> None:
    """Hand SIGTERM to every process of the training, whose own handlers save a checkpoint."""

    def forward(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)

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
