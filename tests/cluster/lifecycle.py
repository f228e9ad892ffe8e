"""Starts and stops the whole cluster."""

import shutil

from cluster import processes
from cluster.containerd import start_containerd
from cluster.control_plane import Cluster, Ports, is_ready, start_control_plane, stop_control_plane
from cluster.images import build_images, check_disk_space, load_images, load_pause_image
from cluster.layout import API_PORT, IMAGES, NODE_ADDRESS, STATE, ClusterError, log_progress
from cluster.node import create_interface, find_other_node, start_node, stop_node, unmount_below
from cluster.packages import install_debian, install_kubernetes
from cluster.storage import create_volumes, recycle_volumes

_CLUSTER = Cluster(STATE, f"https://{NODE_ADDRESS}:{API_PORT}")
_PROCESSES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
    "coredns",
)


def up(*, images: bool = False) -> Cluster:
    """Start the cluster unless it is healthy; with `images`, also build and load the project's images.

    Raises:
        ClusterError: the machine cannot run the cluster, another node runs on it, or a build failed.
    """
    if images:
        check_disk_space()
    install_kubernetes()
    install_debian()
    if images:
        build_images()
    if is_healthy():
        recycle_volumes(_CLUSTER)
    else:
        other = find_other_node(STATE)
        if other:
            raise ClusterError(
                f"{other} already runs on this machine, and two nodes break each other's network: stop it, "
                "or use its cluster with CLUSTER=current REGISTRY=<registry> make demo"
            )
        log_progress("starting the cluster")
        down()
        create_interface()
        start_containerd(STATE)
        cluster = start_control_plane(STATE, NODE_ADDRESS, Ports(), scheduler=True)
        load_pause_image()
        start_node(cluster)
        create_volumes(cluster)
        log_progress(f"the cluster is ready: export KUBECONFIG={cluster.kubeconfig}")
    if images:
        load_images()
    return _CLUSTER


def down() -> None:
    """Stop everything that `up` started and delete the cluster's data; keep programs and images."""
    stop_node(STATE)
    stop_control_plane(STATE)
    # buildah leaves a bind mount of its storage behind.
    unmount_below(IMAGES)
    for name in ("etcd", "pki", "kubeconfigs", "kubelet", "volumes", "logs", "run", "pki-kubelet"):
        shutil.rmtree(STATE / name, ignore_errors=True)


def find_running() -> Cluster | None:
    """Return the cluster if it runs, else None."""
    return _CLUSTER if is_healthy() else None


def is_healthy() -> bool:
    """Return whether every process runs and the API server is ready."""
    return all(processes.is_running(STATE, name) for name in _PROCESSES) and is_ready(_CLUSTER)
