"""Starts and stops the node: its interface, kubelet, kube-proxy and DNS."""

import contextlib
import json
import shutil
from pathlib import Path

from cluster import processes
from cluster.containerd import RUNTIME, SOCKET, stop_containerd
from cluster.control_plane import Cluster
from cluster.layout import (
    BIN,
    BRIDGE,
    DNS_ADDRESS,
    NODE_ADDRESS,
    NODE_INTERFACE,
    NODE_NAME,
    POD_NETWORK,
    log_progress,
)
from cluster.processes import run_program

_NODE_PROGRAMS = ("kubelet", "k3s", "k3s-server", "k0s", "rke2")
_CHAINS = ("KUBE-", "CNI-")


def create_interface() -> None:
    """Create the interface with the node's address: a bridge without ports, which every kernel supports."""
    if run_program("ip", "link", "show", NODE_INTERFACE, check=False).returncode != 0:
        run_program("ip", "link", "add", NODE_INTERFACE, "type", "bridge")
        run_program("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", NODE_INTERFACE)
    run_program("ip", "link", "set", NODE_INTERFACE, "up")
    run_program("sysctl", "-qw", "net.ipv4.ip_forward=1")


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
    log_progress("waiting for the node")
    cluster.run_kubectl("wait", "--for=create", "--timeout=60s", f"node/{NODE_NAME}")
    cluster.run_kubectl("wait", "--for=condition=Ready", "--timeout=90s", f"node/{NODE_NAME}")


def stop_node(directory: Path) -> None:
    """Stop the node's processes and pods; remove its mounts, interfaces and network rules."""
    for name in ("coredns", "kube-proxy", "kubelet"):
        processes.stop(directory, name)
    stop_containerd(directory)
    unmount_below(directory)
    unmount_below(RUNTIME)
    other = find_other_node(directory)
    if other:
        log_progress(f"{other} runs on this machine: keeping all network rules and namespaces, since some are its own")
    else:
        _unmount_namespaces()
        if shutil.which("iptables"):
            _remove_rules()
    for name in (BRIDGE, NODE_INTERFACE):
        run_program("ip", "link", "delete", name, check=False)
    shutil.rmtree(RUNTIME, ignore_errors=True)


def find_other_node(directory: Path) -> str:
    """Return another Kubernetes node on this machine, such as `kubelet (process 123)`; empty if there is none.

    Two nodes would overwrite each other's network rules.
    """
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program = Path((entry / "cmdline").read_text().partition("\0")[0]).name
            if program in _NODE_PROGRAMS and processes.find(directory, "kubelet") != int(entry.name):
                return f"{program} (process {entry.name})"
    return ""


def unmount_below(directory: Path) -> None:
    """Unmount all mounts below a directory."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{directory}/")), reverse=True):
        run_program("umount", "--lazy", mount, check=False)


def _unmount_namespaces() -> None:
    for name in sorted(Path("/run/netns").glob("cni-*")) if Path("/run/netns").exists() else []:
        run_program("umount", "--lazy", name, check=False)
        name.unlink(missing_ok=True)


def _remove_rules() -> None:
    """Remove the iptables chains of kube-proxy and of the network plugins, and all rules that refer to them."""
    for tool in ("iptables", "ip6tables"):
        saved = run_program(f"{tool}-save", check=False)
        if saved.returncode != 0:
            continue
        kept = [
            line
            for line in saved.stdout.splitlines()
            if not any(chain in line for chain in _CHAINS) and 'name: "finetune' not in line
        ]
        run_program(f"{tool}-restore", stdin="\n".join(kept) + "\n", check=False)


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
