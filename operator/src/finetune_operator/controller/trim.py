"""Reduces an object to what decisions read: the cache holds tens of thousands of them (client-go: TransformFunc).

No decision can depend on what this leaves out. No I/O.
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


def trim(manifest: Manifest) -> Manifest:
    """Return the parts of an object that the cache stores."""
    identity = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"]}
    metadata = {name: manifest["metadata"][name] for name in _METADATA if name in manifest["metadata"]}
    match manifest["kind"]:
        case "Pod":
            # The configuration of a pod is in its Job; the result is in its status.
            parts = {"spec": _trim_pod_spec(manifest.get("spec") or {}), "status": manifest.get("status") or {}}
        case "Job":
            spec = dict(manifest["spec"])
            spec["template"] = {"spec": _trim_pod_spec(spec["template"]["spec"])}
            parts = {"spec": spec, "status": manifest.get("status") or {}}
        case _:
            parts = {name: part for name, part in manifest.items() if name not in ("apiVersion", "kind", "metadata")}
            annotations = metadata.get("annotations", {})
            if _LAST_APPLIED in annotations:
                metadata["annotations"] = {name: text for name, text in annotations.items() if name != _LAST_APPLIED}
    return dict(_intern_keys(identity | {"metadata": metadata} | parts))


def _trim_pod_spec(spec: Manifest) -> Manifest:
    """Return the resources and arguments of the containers, and the reference to an evaluation's API key."""
    return {
        "containers": [
            {name: container[name] for name in ("name", "args", "resources") if name in container}
            | {"env": [variable for variable in container.get("env", ()) if variable["name"] == API_KEY]}
            for container in spec.get("containers", ())
        ]
    }


def _intern_keys(value: Any) -> Any:
    """Return an equal value whose dictionary keys are interned: all objects share one copy of each."""
    if isinstance(value, dict):
        return {sys.intern(name): _intern_keys(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_intern_keys(part) for part in value]
    return value
