"""Starts the training processes of this node and waits for their report."""

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
from dataclasses import dataclass
from pathlib import Path

from finetune_api.compute import Compute
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.reports import StageReport, parse_report
from finetune_api.summaries import ChosenHyperparameters

from finetune_trainer.failures import StageError
from finetune_trainer.train.micro_batch import load_hyperparameters, read_micro_batch

_SHUTDOWN_SECONDS = 100
"""Seconds between SIGTERM and SIGKILL in torch elastic; less than the grace period of the pod."""
_RENDEZVOUS_PORT = 29400
_MICRO_BATCH_WAIT_SECONDS = 15
"""Seconds until a micro-batch that another node wrote is visible on the shared volume."""


@dataclass(frozen=True)
class ProcessGroup:
    """The running training processes of this node."""

    id: int
    """The ID of their process group, which signals are sent to."""
    wait: Callable[[], int]
    """Waits until the first process of the group ends; returns its exit code, negative if a signal killed it."""


def launch_training(
    job: JobFile, job_file: Path, directory: JobDirectory, attempt: int, metrics_port: int, leader: str
) -> StageReport:
    """Train in separate processes; restart with a smaller micro-batch when the GPU runs out of memory.

    Args:
        job: the FineTuneJob.
        job_file: the file that it was read from.
        directory: the directory of the FineTuneJob.
        attempt: number of the attempt.
        metrics_port: port for Prometheus.
        leader: DNS name of the first node, the rendezvous of several nodes.

    Raises:
        StageError: the prepared data is missing, or no process wrote a report.
    """
    compute = job.spec.compute
    arguments = [
        f"--job={job_file}",
        f"--root={directory.root}",
        f"--attempt={attempt}",
        f"--metrics-port={metrics_port}",
    ]
    hyperparameters = load_hyperparameters(job.spec, directory)
    while True:
        rendezvous_id = f"{attempt}-{hyperparameters.micro_batch_size}"
        exit_code, report = _run_processes(arguments, compute, leader, rendezvous_id)
        smaller = _find_smaller(directory.checkpoints, hyperparameters, compute) if exit_code else None
        if smaller is None:
            break
        hyperparameters = smaller
    if report is None and exit_code == -signal.SIGTERM:
        raise StageError(Reason.RETRYING, "stopped before the first step: no progress was lost")
    if report is None:
        raise StageError(
            Reason.TRAINING_FAILED, f"the training exited with code {exit_code} and without a report: see its log"
        )
    return report


def _run_processes(
    arguments: list[str], compute: Compute, leader: str, rendezvous_id: str
) -> tuple[int, StageReport | None]:
    """Run the processes of this node until all have ended; return the exit code and the report, if they wrote one.

    SIGTERM is forwarded to all of them, and they save a checkpoint.
    """
    # No TemporaryDirectory: each forked process would delete it when it ends.
    scratch = Path(tempfile.mkdtemp())
    try:
        report_path = scratch / "report.json"
        arguments = [*arguments, f"--report={report_path}"]
        environment = _build_environment(compute)
        if compute.processes == 1:
            group = _fork_process(arguments, environment)
        else:
            group = _start_elastic(arguments, environment, compute, leader, rendezvous_id)
        _forward_sigterm(group)
        exit_code = group.wait()
        _wait_for_all(group)
        return exit_code, parse_report(report_path.read_text()) if report_path.exists() else None
    finally:
        shutil.rmtree(scratch)


def _build_environment(compute: Compute) -> dict[str, str]:
    return {
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_SHUTDOWN_SECONDS),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "true" if compute.processes_on_node == 1 else "false",
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // compute.processes_on_node)),
        # Threads that wait actively would take the cores from other processes of the node.
        "OMP_WAIT_POLICY": "PASSIVE",
        # Without these, sums of oneMKL may differ in their last bits between runs (its developer guide,
        # "Reproducibility Conditions"), so a resumed training would differ from an uninterrupted one.
        "MKL_CBWR": "AUTO",
        "MKL_DYNAMIC": "FALSE",
    }


def _fork_process(arguments: list[str], environment: dict[str, str]) -> ProcessGroup:
    """Fork the only process of a training, which does not need torch elastic."""
    process = multiprocessing.get_context("fork").Process(target=_train, args=(arguments, environment))
    process.start()
    group_id = int(process.pid or 0)
    # The process does this too: whichever is first, a signal to the group reaches the process.
    with contextlib.suppress(OSError):
        os.setpgid(group_id, group_id)

    def wait() -> int:
        process.join()
        return process.exitcode or 0

    return ProcessGroup(group_id, wait)


def _train(arguments: list[str], environment: dict[str, str]) -> None:
    """Train in this process, which was just forked; set the environment before importing the modules that read it."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ |= environment
    from finetune_trainer.train.training import main

    try:
        main(arguments)
    finally:
        # Trackers finish their runs in exit handlers, which multiprocessing does not call before Python 3.14.
        atexit._run_exitfuncs()  # noqa: SLF001


def _start_elastic(
    arguments: list[str], environment: dict[str, str], compute: Compute, leader: str, rendezvous_id: str
) -> ProcessGroup:
    """Start the processes of this node through torch elastic."""
    if compute.nodes == 1:
        rendezvous = ["--standalone"]
    else:
        endpoint = f"{leader}:{_RENDEZVOUS_PORT}"
        rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", f"--rdzv-id={rendezvous_id}"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={compute.nodes}",
        f"--nproc-per-node={compute.processes_on_node}",
        "--max-restarts=0",
        *rendezvous,
        "--module",
        "finetune_trainer.train.training",
        *arguments,
    ]
    process = subprocess.Popen(command, env=os.environ | environment, start_new_session=True)
    return ProcessGroup(process.pid, process.wait)


def _find_smaller(
    checkpoints: Path, hyperparameters: ChosenHyperparameters, compute: Compute
) -> ChosenHyperparameters | None:
    """Return the hyperparameters with a smaller micro-batch, if a process of any node wrote one; otherwise None."""
    deadline = time.monotonic() + (_MICRO_BATCH_WAIT_SECONDS if compute.nodes > 1 else 0)
    while True:
        smaller = read_micro_batch(checkpoints, hyperparameters)
        if smaller.micro_batch_size < hyperparameters.micro_batch_size:
            return smaller
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.5)


def _forward_sigterm(group: ProcessGroup) -> None:
    """Forward SIGTERM to every process of the group; the handler in each of them saves a checkpoint."""

    def forward(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group.id, signal.SIGTERM)

    signal.signal(signal.SIGTERM, forward)


def _wait_for_all(group: ProcessGroup) -> None:
    """Wait for all processes of the group: torch elastic ends on SIGTERM while its workers still save a checkpoint."""
    while True:
        try:
            # The first process of a container inherits orphaned processes and has to reap them.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-group.id, os.WNOHANG)
            os.killpg(group.id, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
