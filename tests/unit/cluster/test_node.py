"""Which node is not ours."""

import subprocess
from pathlib import Path

from cluster import processes
from cluster.node import find_other_node


def test_a_node_of_someone_else_is_seen(tmp_path: Path) -> None:
    link = tmp_path / "k3s-server"
    link.symlink_to("/bin/sleep")
    stranger = subprocess.Popen([link, "600"])
    try:
        processes.wait_until(lambda: bool(find_other_node(tmp_path)), "the stranger", 10)
    finally:
        stranger.kill()
        stranger.wait()
