"""What the embedded Kubernetes decides: whose a process is, what an image is made from, which volume is free."""

import subprocess
import sys
from pathlib import Path

import pytest
from cluster import processes
from cluster.layout import ROOT, ClusterError, digest_inputs
from cluster.node import find_other_node
from cluster.storage import build_volume, may_be_recycled


def test_a_process_is_ours_by_its_id_and_its_start_time(tmp_path: Path) -> None:
    processes.start(tmp_path, "sleeper", [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"])
    try:
        pid = processes.find(tmp_path, "sleeper")
        assert pid is not None
        assert Path(f"/proc/{pid}/cwd").readlink() == tmp_path
        record = tmp_path / "run" / "sleeper.json"
        ours = record.read_text()
        record.write_text(ours.replace(f'"started": {processes.start_time(pid)}', '"started": 1'))
        assert processes.find(tmp_path, "sleeper") is None
        processes.stop(tmp_path, "sleeper")
        assert processes.start_time(pid) is not None, "a process with another start time was stopped"
        record.write_text(ours)
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


def test_what_never_comes_true_is_named() -> None:
    with pytest.raises(ClusterError, match="in vain for the moon"):
        processes.wait_until(lambda: False, "the moon", 0)


def test_a_node_that_is_not_ours_is_seen(tmp_path: Path) -> None:
    link = tmp_path / "k3s-server"
    link.symlink_to("/bin/sleep")
    stranger = subprocess.Popen([link, "600"])
    try:
        processes.wait_until(lambda: bool(find_other_node(tmp_path)), "the stranger", 10)
    finally:
        stranger.kill()
        stranger.wait()


def test_an_image_is_made_anew_when_a_file_or_its_base_changes(tmp_path: Path) -> None:
    file = ROOT / "install.sh"
    before = digest_inputs([file], "base-1")
    assert digest_inputs([file], "base-1") == before
    assert digest_inputs([file], "base-2") != before
    assert digest_inputs([file, ROOT / "uv.lock"], "base-1") != before


@pytest.mark.parametrize(
    ("storage_class", "phase", "free"),
    [
        ("local", "Released", True),
        ("local", "Bound", False),
        ("local", "Available", False),
        ("kept-helpdesk-base", "Released", False),
        ("fast", "Released", False),
    ],
)
def test_only_a_used_and_free_volume_of_ours_is_emptied(storage_class: str, phase: str, *, free: bool) -> None:
    volume = build_volume("local-1", Path("/nowhere"))
    volume["spec"]["storageClassName"] = storage_class
    assert may_be_recycled(volume | {"status": {"phase": phase}}) is free
    assert not may_be_recycled(volume)
