"""Starts and stops the cluster's processes; touches none that it did not start.

A process is known by its id and its start time, so that an id which the kernel gave to another
process since is never mistaken for ours.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.layout import ClusterError


def start(directory: Path, name: str, command: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
    """Start a process that outlives this one; its output goes to `logs/<name>.log`."""
    if is_running(directory, name):
        return
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    (directory / "run").mkdir(parents=True, exist_ok=True)
    with (directory / "logs" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env=os.environ | (env or {}),
            start_new_session=True,
        )
    record = {"pid": process.pid, "started": start_time(process.pid)}
    # Python complains of a process that it forgets while it still runs; ours are meant to.
    process.returncode = 0
    (directory / "run" / f"{name}.json").write_text(json.dumps(record))


def stop(directory: Path, name: str, grace: float = 20) -> None:
    """Stop a process that `start` started: SIGTERM, then SIGKILL."""
    pid = find(directory, name)
    if pid is not None:
        for signum, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
            if _wait_gone(directory, name, seconds):
                break
    (directory / "run" / f"{name}.json").unlink(missing_ok=True)


def is_running(directory: Path, name: str) -> bool:
    """Tell whether the process that `start` started still runs."""
    return find(directory, name) is not None


def find(directory: Path, name: str) -> int | None:
    """Return the id of the process that `start` started; None where it does not run."""
    try:
        record = json.loads((directory / "run" / f"{name}.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    started = start_time(record["pid"])
    return int(record["pid"]) if started is not None and started == record["started"] else None


def wait_until(is_true: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait for a condition.

    Raises:
        ClusterError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.1)


def run_program(*command: str | Path, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    Raises:
        ClusterError: it failed, and `check` is set.
    """
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise ClusterError(f"{' '.join(str(part) for part in command)}: {(done.stderr or done.stdout).strip()}")
    return done


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None where there is none, or only its corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _wait_gone(directory: Path, name: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if find(directory, name) is None:
            return True
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.05)
    return False
