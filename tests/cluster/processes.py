"""Starts and stops the cluster's processes, and only those.

A process is identified by its PID and its start time, because the kernel may give the PID of an ended process to
another one.
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
    """Start a process that outlives this one, unless it runs; append its output to `logs/<name>.log`."""
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
    # Otherwise Python warns that the process still runs when its Popen object is deleted.
    process.returncode = 0
    (directory / "run" / f"{name}.json").write_text(json.dumps(record))


def stop(directory: Path, name: str, grace: float = 20) -> None:
    """Stop a process of `start`: SIGTERM, and SIGKILL after `grace` seconds."""
    pid = find(directory, name)
    if pid is not None:
        for signum, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
            if _wait_gone(directory, name, seconds):
                break
    (directory / "run" / f"{name}.json").unlink(missing_ok=True)


def is_running(directory: Path, name: str) -> bool:
    """Return whether a process of `start` still runs."""
    return find(directory, name) is not None


def find(directory: Path, name: str) -> int | None:
    """Return the PID of a process of `start`; None if it does not run."""
    try:
        record = json.loads((directory / "run" / f"{name}.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    started = start_time(record["pid"])
    return int(record["pid"]) if started is not None and started == record["started"] else None


def wait_until(is_true: Callable[[], bool], what: str, seconds: float) -> None:
    """Poll until a condition is true.

    Raises:
        ClusterError: it is still false after `seconds`; the message says `what` was expected.
    """
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise ClusterError(f"timed out after {seconds:.0f} s waiting for {what}")
        time.sleep(0.1)


def run_program(*command: str | Path, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program and return its result.

    Raises:
        ClusterError: `check` is set and the program failed.
    """
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise ClusterError(f"{' '.join(str(part) for part in command)}: {(done.stderr or done.stdout).strip()}")
    return done


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it does not exist or is a zombie."""
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
