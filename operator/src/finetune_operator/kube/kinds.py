"""The kinds that the operator watches, and the identity of their objects."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from finetune_api.meta import GROUP, VERSION

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""


class Key(NamedTuple):
    """The identity of an object in the cluster."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Kind:
    """A kind and its path in the API."""

    name: str
    group: str
    version: str
    plural: str
    selector: str | None = None
    """Label selector of the watch; None watches all objects."""

    @property
    def api_version(self) -> str:
        """The kind's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Return the path of one object, of a namespace's objects, or of all."""
        root = f"/apis/{self.group}" if self.group else "/api"
        parts = [f"{root}/{self.version}", f"namespaces/{namespace}" if namespace else "", self.plural, name]
        return "/".join(part for part in parts if part)


OWNED_LABEL = f"{GROUP}/owned"
"""On every object that the operator creates; of kinds other than our own it watches only objects with this label."""

FINETUNEJOB = Kind("FineTuneJob", GROUP, VERSION, "finetunejobs")
MODELSERVER = Kind("ModelServer", GROUP, VERSION, "modelservers")
JOB = Kind("Job", "batch", "v1", "jobs", OWNED_LABEL)
POD = Kind("Pod", "", "v1", "pods", OWNED_LABEL)
CONFIGMAP = Kind("ConfigMap", "", "v1", "configmaps", OWNED_LABEL)
CLAIM = Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", OWNED_LABEL)
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments", OWNED_LABEL)
SERVICE = Kind("Service", "", "v1", "services", OWNED_LABEL)
BUDGET = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets", OWNED_LABEL)
POLICY = Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", OWNED_LABEL)
AUTOSCALER = Kind("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers", OWNED_LABEL)
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")

WATCHED = (
    FINETUNEJOB,
    MODELSERVER,
    JOB,
    POD,
    CONFIGMAP,
    CLAIM,
    DEPLOYMENT,
    SERVICE,
    BUDGET,
    POLICY,
    AUTOSCALER,
)

OWNERS = (FINETUNEJOB.name, MODELSERVER.name)
"""Our own kinds, which own all other objects."""

_BY_NAME = {kind.name: kind for kind in WATCHED}


def kind_of(manifest: Manifest) -> Kind:
    """Return the kind of an object."""
    return _BY_NAME[manifest["kind"]]


def key_of(manifest: Manifest) -> Key:
    """Return the identity of an object."""
    metadata = manifest["metadata"]
    return Key(manifest["kind"], metadata["namespace"], metadata["name"])


def label_of(manifest: Manifest, label: str) -> str | None:
    """Return the value of a label, or None."""
    value = manifest["metadata"].get("labels", {}).get(label)
    return value if isinstance(value, str) else None


def controller_uid(manifest: Manifest) -> str | None:
    """Return the uid of the owner that controls the object, or None."""
    for owner in manifest["metadata"].get("ownerReferences", []):
        if owner.get("controller"):
            return str(owner["uid"])
    return None
