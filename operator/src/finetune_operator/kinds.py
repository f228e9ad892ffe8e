"""The kinds that the operator watches, and how objects of them are named."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from finetune_api.meta import GROUP, JOB_LABEL, SERVER_LABEL, VERSION

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""


class Key(NamedTuple):
    """The identity of an object in the cluster."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Kind:
    """A kind and where the API server keeps it."""

    name: str
    group: str
    version: str
    plural: str
    selector: str | None = None
    """Label that an object must have to be watched; None watches all."""

    @property
    def api_version(self) -> str:
        """The kind's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Return the path of one object, of a namespace's, or of all."""
        root = f"/apis/{self.group}" if self.group else "/api"
        parts = [f"{root}/{self.version}", f"namespaces/{namespace}" if namespace else "", self.plural, name]
        return "/".join(part for part in parts if part)


FINETUNEJOB = Kind("FineTuneJob", GROUP, VERSION, "finetunejobs")
MODELSERVER = Kind("ModelServer", GROUP, VERSION, "modelservers")
JOB = Kind("Job", "batch", "v1", "jobs", JOB_LABEL)
JOB_POD = Kind("Pod", "", "v1", "pods", JOB_LABEL)
SERVER_POD = Kind("Pod", "", "v1", "pods", SERVER_LABEL)
CONFIGMAP = Kind("ConfigMap", "", "v1", "configmaps", f"{GROUP}/owned")
CLAIM = Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", f"{GROUP}/owned")
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments", SERVER_LABEL)
SERVICE = Kind("Service", "", "v1", "services", f"{GROUP}/owned")
BUDGET = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets", SERVER_LABEL)
POLICY = Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", SERVER_LABEL)
AUTOSCALER = Kind("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers", SERVER_LABEL)
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")

WATCHED = (
    FINETUNEJOB,
    MODELSERVER,
    JOB,
    JOB_POD,
    SERVER_POD,
    CONFIGMAP,
    CLAIM,
    DEPLOYMENT,
    SERVICE,
    BUDGET,
    POLICY,
    AUTOSCALER,
)

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
