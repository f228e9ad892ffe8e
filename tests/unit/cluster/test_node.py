"""Detection of other Kubernetes nodes on the machine."""

import subprocess
from pathlib import Path

from cluster import processes
from cluster.node import find_other_node


def test_another_node_on_the_machine_is_found(tmp_path: Path) -> None:
    link = tmp_path / "k3s-server"
    link.symlink_to("/bin/sleep")
    other = subprocess.Popen([link, "600"])
    try:
        processes.wait_until(lambda: bool(find_other_node(tmp_path)), "the other node", 10)
    finally:
        other.kill()
        other.wait()
