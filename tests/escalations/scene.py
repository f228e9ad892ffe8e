"""The setting of the attempts: a tenant with few rights, and objects that belong to others."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from api.account import build_namespace, write_kubeconfig
from api.conftest import finetunejob, modelserver
from api.player import succeed
from cluster.control_plane import Cluster
from escalations.caller import FINETUNE, Answer, Caller
from escalations.gains import find_gains
from waiting import wait_for

Manifest = dict[str, Any]
TENANT, VICTIM, CLAIMED = "tenant", "victim", "claimed"
"""The tenant's namespace, a namespace of others, and one of the tenant's with a claim that others created."""
MINE, OTHERS = "mine", "others"
"""Names of a Secret and a ConfigMap that the tenant may get, and of those that it may not; in its namespace."""
SETTINGS = {"sources": {"httpsHosts": ["data.example.com", "*.mirror.example"]}}
IMAGES = {"trainer:1", "serving:1"}
REFUSED, DECLINED, HARMLESS, SUCCEEDED = "refused", "declined", "harmless", "succeeded"


@dataclass(frozen=True)
class Attempt:
    """An attempt to get more rights, and its outcome."""

    description: str
    outcome: str
    """`refused` by the API server, `declined` by the operator, `harmless`, or `succeeded`."""
    evidence: str = ""
    """What shows the outcome."""


@dataclass(frozen=True)
class Scene:
    """The administrator, the tenant, and the jobs whose pods succeed."""

    admin: Caller
    tenant: Caller
    is_thorough: bool
    """Whether every hostile word is tried in every field; otherwise a sample, which saves a minute."""
    played: set[str] = field(default_factory=set)
    """Names of the jobs whose pods succeed; all other pods keep running."""

    def play(self, pod: Manifest) -> tuple[int, str] | None:
        """Return the result of a pod; the script for the player."""
        return succeed(pod) if pod["metadata"]["labels"]["finetune.dev/job"] in self.played else None

    def is_observed(self, manifest: Manifest) -> bool:
        """Return whether an object exists and has conditions from the operator."""
        current = self.admin.find(manifest)
        return bool(current and current.get("status", {}).get("conditions"))

    def wait_for_operator(self, manifests: list[Manifest]) -> None:
        """Wait until each object has conditions from the operator."""
        pending = list(manifests)

        def are_observed() -> bool:
            pending[:] = [manifest for manifest in pending if not self.is_observed(manifest)]
            return not pending

        wait_for(are_observed, lambda: f"conditions of {[manifest['metadata']['name'] for manifest in pending]}")

    def reason_of(self, manifest: Manifest, kind: str) -> tuple[str, str]:
        """Return status and reason of a condition."""
        conditions = self.admin.get(manifest).get("status", {}).get("conditions", [])
        return next(
            ((condition["status"], condition["reason"]) for condition in conditions if condition["type"] == kind),
            ("", ""),
        )

    def gains_of(self, name: str) -> list[str]:
        """Return the forbidden settings in the pods of the tenant's job and server of a name."""
        return [gain for template in self.templates_of(name) for gain in find_gains(template, IMAGES)]

    def templates_of(self, name: str) -> list[Manifest]:
        """Return the pod templates of the children of the tenant's job and server of a name."""
        paths = (f"/apis/batch/v1/namespaces/{TENANT}/jobs", f"/apis/apps/v1/namespaces/{TENANT}/deployments")
        workloads = [workload for path in paths for workload in self.admin.list(path)]
        return [workload["spec"]["template"] for workload in workloads if _is_of(workload, name)]

    def assess(self, description: str, answer: Answer, name: str) -> Attempt:
        """Return the outcome of an attempt whose object the operator has already reconciled."""
        if answer.is_refused:
            return Attempt(description, REFUSED, answer.message)
        templates = self.templates_of(name)
        gains = [gain for template in templates for gain in find_gains(template, IMAGES)]
        if gains:
            return Attempt(description, SUCCEEDED, "; ".join(gains))
        return Attempt(description, HARMLESS if templates else DECLINED, f"{len(templates)} pod templates")


def _is_of(manifest: Manifest, name: str) -> bool:
    owners = manifest["metadata"].get("ownerReferences", [])
    return any(owner["name"] == name and owner["apiVersion"].startswith("finetune.dev/") for owner in owners)


@contextmanager
def open_scene(cluster: Cluster, *, is_thorough: bool) -> Iterator[Scene]:
    """Create the namespaces, the tenant and the objects of others; wait until the admission policies are in force."""
    with closing(Caller(cluster.kubeconfig)) as admin:
        _create_objects(admin)
        with closing(Caller(write_kubeconfig(cluster, TENANT, "tenant"))) as tenant:
            scene = Scene(admin, tenant, is_thorough)
            wait_for(lambda: _are_policies_active(scene), "the admission policies to be in force", 90)
            yield scene


def _create_objects(admin: Caller) -> None:
    _make_namespace(admin, VICTIM)
    for namespace in (TENANT, CLAIMED):
        allow_tenant(admin, namespace)
    for namespace in (TENANT, VICTIM):
        for name in (MINE, OTHERS):
            metadata = {"name": name, "namespace": namespace}
            for manifest in (
                {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"HF_TOKEN": "x"}},
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"train.jsonl": "x"}},
            ):
                _make(admin, manifest)
    _make(admin, job("job", VICTIM))
    account = {"name": "tenant", "namespace": TENANT}
    _make(admin, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    priority = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "batch"},
        "value": 1,
    }
    assert admin.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", priority).code == 201


def allow_tenant(admin: Caller, namespace: str) -> None:
    """Create a namespace in which the tenant may write our kinds and get its own Secret and ConfigMap."""
    _make_namespace(admin, namespace)
    rbac = "rbac.authorization.k8s.io"
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    rules = [
        {"apiGroups": ["finetune.dev"], "resources": ["finetunejobs", "modelservers"], "verbs": verbs},
        {"apiGroups": [""], "resources": ["secrets", "configmaps"], "resourceNames": [MINE], "verbs": ["get"]},
    ]
    metadata = {"name": "tenant", "namespace": namespace}
    _make(admin, {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
    binding: Manifest = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": metadata}
    binding["roleRef"] = {"apiGroup": rbac, "kind": "Role", "name": "tenant"}
    binding["subjects"] = [{"kind": "ServiceAccount", "name": "tenant", "namespace": TENANT}]
    _make(admin, binding)


def _make_namespace(admin: Caller, name: str) -> None:
    answer = admin.call("POST", "/api/v1/namespaces", build_namespace(name))
    assert answer.code == 201, answer.message


def _are_policies_active(scene: Scene) -> bool:
    """Return whether the API server enforces the admission policies, which takes a while after their creation."""
    answers = [
        scene.tenant.create(manifest, dry_run=True)
        for manifest in (
            job("probe", model={"uri": "hf://org/base", "secretRef": {"name": OTHERS}}),
            server("probe", auth={"secretRef": {"name": OTHERS}}),
        )
    ]
    return all(answer.code == 403 and OTHERS in answer.message for answer in answers)


def _make(admin: Caller, manifest: Manifest) -> Manifest:
    answer = admin.create(manifest)
    assert answer.code == 201, f"{json.dumps(manifest)}: {answer.message}"
    return answer.body


def job(name: str, namespace: str = TENANT, **spec: Any) -> Manifest:
    """Return a valid FineTuneJob whose data is on a claim."""
    data = {"train": {"uri": "pvc://data/train.jsonl"}}
    return finetunejob(name, namespace, **({"dataset": data} | spec))


def server(name: str, **spec: Any) -> Manifest:
    """Return a valid ModelServer."""
    return modelserver(name, TENANT, **spec)


def path(kind: str, name: str = "", namespace: str = TENANT) -> str:
    """Return the path of our objects."""
    return f"{FINETUNE}/{namespace}/{kind}" + (f"/{name}" if name else "")
