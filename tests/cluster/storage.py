"""Volumes for pods without root: `local` volumes on directories that everybody can write.

A fixed number is available for claims; a volume whose claim was deleted is emptied and made available again. Kept
volumes have a name and keep their content when the cluster is stopped.
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
    """Create the storage class and the volumes that are missing."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": _CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    volumes = [
        build_volume(f"local-{number}", _create_directory(cluster.volumes / str(number))) for number in range(_COUNT)
    ]
    _apply(cluster, [storage_class, *volumes])


def recycle_volumes(cluster: Cluster) -> None:
    """Empty the volumes whose claims were deleted, and make them available again."""
    listed = json.loads(cluster.run_kubectl("get", "persistentvolumes", "-o", "json"))["items"]
    for volume in listed:
        if not is_recyclable(volume):
            continue
        name, directory = volume["metadata"]["name"], Path(volume["spec"]["local"]["path"])
        cluster.run_kubectl("delete", f"persistentvolume/{name}", "--wait=true")
        shutil.rmtree(directory)
        _apply(cluster, [build_volume(name, _create_directory(directory))])


def create_kept_volume(cluster: Cluster, name: str) -> Path:
    """Create a volume that binds only to claims of class `kept-<name>`; return its directory, whose content is kept."""
    directory = _create_directory(CACHE / "volumes" / name)
    volume = build_volume(name, directory)
    volume["spec"]["storageClassName"] = f"kept-{name}"
    listed = cluster.run_kubectl("get", "persistentvolumes", "--ignore-not-found", name, "-o", "json")
    if listed and json.loads(listed).get("status", {}).get("phase") == "Released":
        cluster.run_kubectl("delete", f"persistentvolume/{name}", "--wait=true")
    _apply(cluster, [volume])
    return directory


def is_recyclable(volume: dict[str, Any]) -> bool:
    """Return whether a volume was created by `create_volumes` and its claim was deleted."""
    spec, status = volume.get("spec"), volume.get("status")
    return (
        isinstance(spec, dict)
        and isinstance(status, dict)
        and spec.get("storageClassName") == _CLASS
        and status.get("phase") == "Released"
    )


def build_volume(name: str, directory: Path) -> dict[str, Any]:
    """Return a PersistentVolume on a directory of the node."""
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


def _create_directory(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777)
    return directory


def _apply(cluster: Cluster, items: list[object]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    cluster.run_kubectl("apply", "--server-side", "-f", "-", stdin=text)
