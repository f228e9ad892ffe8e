"""Processes are identified by PID and start time, and stopped with SIGTERM, then SIGKILL."""

import sys
from pathlib import Path

import pytest
from cluster import processes
from cluster.layout import ClusterError


def test_a_process_is_identified_by_its_pid_and_its_start_time(tmp_path: Path) -> None:
    processes.start(tmp_path, "sleeper", [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"])
    try:
        pid = processes.find(tmp_path, "sleeper")
        assert pid is not None
        assert Path(f"/proc/{pid}/cwd").readlink() == tmp_path
        record = tmp_path / "run" / "sleeper.json"
        original = record.read_text()
        record.write_text(original.replace(f'"started": {processes.start_time(pid)}', '"started": 1'))
        assert processes.find(tmp_path, "sleeper") is None
        processes.stop(tmp_path, "sleeper")
        assert processes.start_time(pid) is not None, "a process with another start time was stopped"
        record.write_text(original)
    finally:
        processes.stop(tmp_path, "sleeper")
    assert processes.start_time(pid) is None


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    processes.start(tmp_path, "deaf", [sys.executable, "-c", script])
    processes.wait_until(lambda: bool((tmp_path / "logs" / "deaf.log").read_text()), "the process", 30)
    pid = processes.find(tmp_path, "deaf")
    assert pid is not None
    processes.stop(tmp_path, "deaf", grace=0.2)
    assert processes.start_time(pid) is None


def test_a_timeout_says_what_was_expected() -> None:
    with pytest.raises(ClusterError, match="timed out after 0 s waiting for the moon"):
        processes.wait_until(lambda: False, "the moon", 0)
