"""containerd and the pod network of the node."""

import contextlib
import json
import os
import signal
from pathlib import Path

from cluster import processes
from cluster.layout import BIN, BRIDGE, POD_NETWORK
from cluster.processes import run_program

PAUSE_IMAGE = "finetune.dev/pause:dev"
RUNTIME = Path("/run/finetune-cluster")
"""Short, because the path of a socket is limited to 107 characters."""
SOCKET = RUNTIME / "containerd.sock"
_DATA = "containerd-data"


def start_containerd(directory: Path) -> None:
    """Start containerd and wait for its socket."""
    RUNTIME.mkdir(parents=True, exist_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "containerd.toml"
    config.write_text(_containerd_config(directory))
    _write_network(directory)
    processes.start(
        directory,
        "containerd",
        [BIN / "containerd", "--config", config],
        env={"PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    processes.wait_until(
        lambda: run_program(BIN / "ctr", "--address", SOCKET, "version", check=False).returncode == 0,
        f"containerd (see {directory}/logs/containerd.log)",
        30,
    )


def stop_containerd(directory: Path) -> None:
    """Stop containerd with all its containers and shims."""
    if processes.is_running(directory, "containerd"):
        _remove_pods()
    processes.stop(directory, "containerd")
    _kill_shims()


def run_ctr(*arguments: str | Path) -> str:
    """Run `ctr` in the namespace of Kubernetes and return its output.

    Raises:
        ClusterError: the command failed; the message is its output.
    """
    return run_program(BIN / "ctr", "--address", SOCKET, "--namespace", "k8s.io", *arguments).stdout


def _remove_pods() -> None:
    """Kill every container, which also ends its shim and removes its network namespace."""
    for container in run_ctr("tasks", "list", "-q").split():
        run_program(
            BIN / "ctr",
            "--address",
            SOCKET,
            "-n",
            "k8s.io",
            "tasks",
            "delete",
            "--force",
            container,
            check=False,
        )
    for container in run_ctr("containers", "list", "-q").split():
        run_program(BIN / "ctr", "--address", SOCKET, "-n", "k8s.io", "containers", "delete", container, check=False)


def _kill_shims() -> None:
    """Kill the remaining shims of this cluster's containerd, and their containers."""
    program = str((BIN / "containerd-shim-runc-v2").resolve())  # KUBERNETES_BIN makes it a link.
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((entry / "exe").readlink()) != program:
                continue
            children = (entry / "task" / entry.name / "children").read_text().split()
            for pid in (*children, entry.name):
                os.kill(int(pid), signal.SIGKILL)


def _containerd_config(directory: Path) -> str:
    return f"""version = 3
root = "{directory / _DATA}"
state = "{RUNTIME / "state"}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{directory / "cni"}"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _write_network(directory: Path) -> None:
    config = {
        "cniVersion": "1.0.0",
        "name": "finetune-pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(RUNTIME / "addresses"),
                    "ranges": [[{"subnet": POD_NETWORK}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    (directory / "cni").mkdir(parents=True, exist_ok=True)
    (directory / "cni" / "10-finetune.conflist").write_text(json.dumps(config, indent=1))
