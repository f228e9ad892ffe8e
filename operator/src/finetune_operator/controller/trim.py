"""What is kept of an object in memory: tens of thousands of them stay there, and few of their fields are ever read.

Pure. What this leaves out, no decision can see.
"""

import sys
from typing import Any

from finetune_operator.kube.kinds import Manifest
from finetune_operator.state.child_jobs import API_KEY

_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def keep(manifest: Manifest) -> Manifest:
    """Return what is kept of an object."""
    kept = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"]}
    metadata = {name: manifest["metadata"][name] for name in _METADATA if name in manifest["metadata"]}
    match manifest["kind"]:
        case "Pod":
            # What a pod was told to do is known from its Job; what came of it is in its status.
            parts = {"spec": _keep_pod_spec(manifest.get("spec") or {}), "status": manifest.get("status") or {}}
        case "Job":
            spec = dict(manifest["spec"])
            spec["template"] = {"spec": _keep_pod_spec(spec["template"]["spec"])}
            parts = {"spec": spec, "status": manifest.get("status") or {}}
        case _:
            parts = {name: part for name, part in manifest.items() if name not in ("apiVersion", "kind", "metadata")}
            if _LAST_APPLIED in metadata.get("annotations", {}):
                others = {name: text for name, text in metadata["annotations"].items() if name != _LAST_APPLIED}
                metadata["annotations"] = others
    return dict(_share(kept | {"metadata": metadata} | parts))


def _keep_pod_spec(spec: Manifest) -> Manifest:
    """Return what its containers hold, and what an evaluation was told."""
    return {
        "containers": [
            {name: one[name] for name in ("name", "args", "resources") if name in one}
            | {"env": [variable for variable in one.get("env", ()) if variable["name"] == API_KEY]}
            for one in spec.get("containers", ())
        ]
    }


def _share(value: Any) -> Any:
    """Return the same value, whose keys are in memory once for all objects."""
    if isinstance(value, dict):
        return {sys.intern(name): _share(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_share(part) for part in value]
    return value
