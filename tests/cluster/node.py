"""The node: containerd, the pod network, kubelet, kube-proxy and DNS."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from cluster import processes
from cluster.control_plane import Cluster
from cluster.layout import (
    BIN,
    BRIDGE,
    DNS_ADDRESS,
    NODE_ADDRESS,
    NODE_INTERFACE,
    NODE_NAME,
    POD_NETWORK,
    ClusterError,
    tell,
)

PAUSE_IMAGE = "finetune.dev/pause:dev"
_RUNTIME = Path("/run/finetune-cluster")
"""Short, because sockets' paths may have 107 characters only."""
SOCKET = _RUNTIME / "containerd.sock"
_DATA = "containerd-data"
_CHAINS = ("KUBE-", "CNI-")


def make_interface() -> None:
    """Make the interface with the node's address; a bridge without ports, since it exists on every kernel."""
    if _run("ip", "link", "show", NODE_INTERFACE, check=False).returncode != 0:
        _run("ip", "link", "add", NODE_INTERFACE, "type", "bridge")
        _run("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", NODE_INTERFACE)
    _run("ip", "link", "set", NODE_INTERFACE, "up")
    _run("sysctl", "-qw", "net.ipv4.ip_forward=1")


def start_containerd(directory: Path) -> None:
    """Start containerd and wait for its socket."""
    _RUNTIME.mkdir(parents=True, exist_ok=True)
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
        lambda: _run(BIN / "ctr", "--address", SOCKET, "version", check=False).returncode == 0,
        f"containerd (see {directory}/logs/containerd.log)",
        30,
    )


def start_node(cluster: Cluster) -> None:
    """Start kubelet, kube-proxy and DNS, and wait until the node is ready."""
    directory = cluster.directory
    _write_configs(cluster)
    processes.start(
        directory,
        "kubelet",
        [
            BIN / "kubelet",
            f"--config={directory / 'kubelet.json'}",
            f"--kubeconfig={directory / 'kubeconfigs' / 'kubelet'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
            f"--root-dir={directory / 'kubelet'}",
            f"--cert-dir={directory / 'pki-kubelet'}",
            "--v=1",
        ],
    )
    processes.start(directory, "kube-proxy", [BIN / "kube-proxy", f"--config={directory / 'proxy.json'}"])
    processes.start(directory, "coredns", [BIN / "coredns", "-conf", directory / "Corefile"])
    cluster.run_kubectl("apply", "-f", "-", stdin=json.dumps(_dns_objects()))
    tell("waiting for the node")
    cluster.run_kubectl("wait", "--for=create", "--timeout=60s", f"node/{NODE_NAME}")
    cluster.run_kubectl("wait", "--for=condition=Ready", "--timeout=90s", f"node/{NODE_NAME}")


def stop_node(directory: Path) -> None:
    """Stop the node's processes, its pods' processes, and remove its mounts, interfaces and rules."""
    for name in ("coredns", "kube-proxy", "kubelet"):
        processes.stop(directory, name)
    if processes.is_running(directory, "containerd"):
        _remove_pods()
    processes.stop(directory, "containerd")
    _kill_shims()
    _unmount_below(directory)
    _unmount_below(_RUNTIME)
    if shutil.which("iptables"):
        _remove_rules()
    for name in (BRIDGE, NODE_INTERFACE):
        _run("ip", "link", "delete", name, check=False)
    shutil.rmtree(_RUNTIME, ignore_errors=True)


def run_ctr(*arguments: str | Path) -> str:
    """Run containerd's client in the namespace of Kubernetes.

    Raises:
        ClusterError: it failed; the message is its own.
    """
    return _run(BIN / "ctr", "--address", SOCKET, "--namespace", "k8s.io", *arguments).stdout


def _remove_pods() -> None:
    """Kill every container; their shims and network namespaces go with them."""
    for container in run_ctr("tasks", "list", "-q").split():
        _run(
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
        _run(BIN / "ctr", "--address", SOCKET, "-n", "k8s.io", "containers", "delete", container, check=False)


def _kill_shims() -> None:
    """Kill the shims of this cluster's own containerd that still hold a container, and the container with them."""
    program = str(BIN / "containerd-shim-runc-v2")
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((entry / "exe").readlink()) != program:
                continue
            children = (entry / "task" / entry.name / "children").read_text().split()
            for pid in (*children, entry.name):
                os.kill(int(pid), signal.SIGKILL)


def _unmount_below(directory: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((one for one in mounts if one.startswith(f"{directory}/")), reverse=True):
        _run("umount", "--lazy", mount, check=False)
    for name in sorted(Path("/run/netns").glob("cni-*")) if Path("/run/netns").exists() else []:
        _run("umount", "--lazy", name, check=False)
        name.unlink(missing_ok=True)


def _remove_rules() -> None:
    """Remove the chains of kube-proxy and of the network plugins, and every rule that names them."""
    for tool in ("iptables", "ip6tables"):
        saved = _run(f"{tool}-save", check=False)
        if saved.returncode != 0:
            continue
        kept = [
            line
            for line in saved.stdout.splitlines()
            if not any(chain in line for chain in _CHAINS) and 'name: "finetune' not in line
        ]
        _run(f"{tool}-restore", stdin="\n".join(kept) + "\n", check=False)


def _containerd_config(directory: Path) -> str:
    return f"""version = 3
root = "{directory / _DATA}"
state = "{_RUNTIME / "state"}"
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
                    "dataDir": str(_RUNTIME / "addresses"),
                    "ranges": [[{"subnet": POD_NETWORK}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    (directory / "cni").mkdir(parents=True, exist_ok=True)
    (directory / "cni" / "10-finetune.conflist").write_text(json.dumps(config, indent=1))


def _write_configs(cluster: Cluster) -> None:
    directory = cluster.directory
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "imageGCHighThresholdPercent": 100,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "healthzPort": 0,
    }
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(directory / "kubeconfigs" / "proxy")},
        "clusterCIDR": POD_NETWORK,
        "mode": "iptables",
        "hostnameOverride": NODE_NAME,
        "healthzBindAddress": f"{NODE_ADDRESS}:10256",
        "metricsBindAddress": f"{NODE_ADDRESS}:10249",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    (directory / "kubelet.json").write_text(json.dumps(kubelet, indent=1))
    (directory / "proxy.json").write_text(json.dumps(proxy, indent=1))
    (directory / "Corefile").write_text(
        f""".:53 {{
    bind {NODE_ADDRESS}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {directory / "kubeconfigs" / "dns"}
    }}
    forward . /etc/resolv.conf
    cache 5
}}
"""
    )


def _dns_objects() -> dict[str, object]:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata | {"labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        "ports": ports,
    }
    return {"apiVersion": "v1", "kind": "List", "items": [service, endpoints]}


def _run(*command: str | Path, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise ClusterError(f"{' '.join(str(part) for part in command)}: {(done.stderr or done.stdout).strip()}")
    return done
