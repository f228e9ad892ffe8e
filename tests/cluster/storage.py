"""Volumes for pods that are not root: `local` volumes on directories that all may write.

A fixed number of them waits for claims. One whose claim is gone is emptied and offered again; one with
a name of its own keeps its content when the cluster is stopped and started.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from cluster.control_plane import Cluster
from cluster.layout import CACHE, NODE_NAME

_COUNT = 12
_SIZE = "20Gi"
_CLASS = "local"


def create_volumes(cluster: Cluster) -> None:
    """Make the storage class and the volumes, where they are missing."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": _CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    volumes = [
        build_volume(f"local-{number}", _make_directory(cluster.volumes / str(number))) for number in range(_COUNT)
    ]
    _apply(cluster, [storage_class, *volumes])


def recycle_volumes(cluster: Cluster) -> None:
    """Empty the volumes whose claims are gone, and offer them again."""
    listed = json.loads(cluster.run_kubectl("get", "persistentvolumes", "-o", "json"))["items"]
    for volume in listed:
        if not is_recyclable(volume):
            continue
        name, directory = volume["metadata"]["name"], Path(volume["spec"]["local"]["path"])
        cluster.run_kubectl("delete", f"persistentvolume/{name}", "--wait=true")
        shutil.rmtree(directory)
        _apply(cluster, [build_volume(name, _make_directory(directory))])


def create_kept_volume(cluster: Cluster, name: str) -> Path:
    """Make a volume that only a claim naming it takes; return its directory, whose content is kept."""
    directory = _make_directory(CACHE / "volumes" / name)
    volume = build_volume(name, directory)
    volume["spec"]["storageClassName"] = f"kept-{name}"
    listed = cluster.run_kubectl("get", "persistentvolumes", "--ignore-not-found", name, "-o", "json")
    if listed and json.loads(listed).get("status", {}).get("phase") == "Released":
        cluster.run_kubectl("delete", f"persistentvolume/{name}", "--wait=true")
    _apply(cluster, [volume])
    return directory


def is_recyclable(volume: dict[str, Any]) -> bool:
    """Tell whether a volume of ours was used and is free now."""
    spec, status = volume.get("spec"), volume.get("status")
    return (
        isinstance(spec, dict)
        and isinstance(status, dict)
        and spec.get("storageClassName") == _CLASS
        and status.get("phase") == "Released"
    )


def build_volume(name: str, directory: Path) -> dict[str, Any]:
    """Return the PersistentVolume on a directory of the node."""
    affinity = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": _SIZE},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": _CLASS,
            "local": {"path": str(directory)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [affinity]}]}},
        },
    }


def _make_directory(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777)
    return directory


def _apply(cluster: Cluster, items: list[object]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    cluster.run_kubectl("apply", "--server-side", "-f", "-", stdin=text)
