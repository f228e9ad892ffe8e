"""Where the attempts happen: a tenant with few rights, and things that belong to others."""

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
"""His namespace, somebody else's, and one of his in which somebody made a claim already."""
MINE, OTHERS = "mine", "others"
"""A Secret and a ConfigMap that the tenant may get, and those that he may not; all in his namespace."""
SETTINGS = {"sources": {"httpsHosts": ["data.example.com", "*.mirror.example"]}}
IMAGES = {"trainer:1", "serving:1"}
REFUSED, DECLINED, HARMLESS, SUCCEEDED = "refused", "declined", "harmless", "succeeded"


@dataclass(frozen=True)
class Attempt:
    """One try to get more than one has, and how it ended."""

    what: str
    outcome: str
    """`refused` by the API server, `declined` by the operator, `harmless`, or `succeeded`."""
    seen: str = ""
    """How that is known."""


@dataclass(frozen=True)
class Scene:
    """The people and the places."""

    admin: Caller
    tenant: Caller
    is_thorough: bool
    """Whether every hostile word is tried in every field; else a choice of them, which takes a minute less."""
    played: set[str] = field(default_factory=set)
    """The jobs whose pods end; those of the others run on."""

    def play(self, pod: Manifest) -> tuple[int, str] | None:
        """Let the pods of some jobs succeed: the script of the player."""
        return succeed(pod) if pod["metadata"]["labels"]["finetune.dev/job"] in self.played else None

    def is_looked_at(self, manifest: Manifest) -> bool:
        """Tell whether an object is there, and the operator has said something about it."""
        found = self.admin.find(manifest)
        return bool(found and found.get("status", {}).get("conditions"))

    def wait_for_operator(self, manifests: list[Manifest]) -> None:
        """Wait until the operator has said something about each."""
        left = list(manifests)

        def are_looked_at() -> bool:
            left[:] = [one for one in left if not self.is_looked_at(one)]
            return not left

        wait_for(are_looked_at, lambda: f"the operator to look at {[one['metadata']['name'] for one in left]}")

    def reason_of(self, manifest: Manifest, kind: str) -> tuple[str, str]:
        """Return status and reason of a condition."""
        conditions = self.admin.get(manifest).get("status", {}).get("conditions", [])
        return next(((one["status"], one["reason"]) for one in conditions if one["type"] == kind), ("", ""))

    def gains_of(self, name: str) -> list[str]:
        """Return what the pods of the tenant's job and server of a name have that they should not."""
        return [gain for template in self.templates_of(name) for gain in find_gains(template, IMAGES)]

    def templates_of(self, name: str) -> list[Manifest]:
        """Return the pod templates that were made for the tenant's job and server of a name."""
        paths = (f"/apis/batch/v1/namespaces/{TENANT}/jobs", f"/apis/apps/v1/namespaces/{TENANT}/deployments")
        found = [one for path in paths for one in self.admin.list(path)]
        return [one["spec"]["template"] for one in found if _is_of(one, name)]

    def judge(self, what: str, answer: Answer, name: str) -> Attempt:
        """Judge an attempt by what was admitted: the operator has looked at it already."""
        if answer.is_refused:
            return Attempt(what, REFUSED, answer.message)
        templates = self.templates_of(name)
        gains = [gain for template in templates for gain in find_gains(template, IMAGES)]
        if gains:
            return Attempt(what, SUCCEEDED, "; ".join(gains))
        return Attempt(what, HARMLESS if templates else DECLINED, f"{len(templates)} pod templates")


def _is_of(manifest: Manifest, name: str) -> bool:
    owners = manifest["metadata"].get("ownerReferences", [])
    return any(one["name"] == name and one["apiVersion"].startswith("finetune.dev/") for one in owners)


@contextmanager
def open_scene(cluster: Cluster, *, is_thorough: bool) -> Iterator[Scene]:
    """Make the namespaces, the tenant and what belongs to others; the admission policies are in force then."""
    with closing(Caller(cluster.kubeconfig)) as admin:
        _furnish(admin)
        with closing(Caller(write_kubeconfig(cluster, TENANT, "tenant"))) as tenant:
            scene = Scene(admin, tenant, is_thorough)
            wait_for(lambda: _is_guarded(scene), "the admission policies to be in force", 90)
            yield scene


def _furnish(admin: Caller) -> None:
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
    """Make a namespace in which the tenant may write our kinds, and get what he brings himself."""
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


def _is_guarded(scene: Scene) -> bool:
    """Tell whether the policies are in force: the API server takes a while to know them."""
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
    """Return a valid FineTuneJob whose data lies on a claim."""
    data = {"train": {"uri": "pvc://data/train.jsonl"}}
    return finetunejob(name, namespace, **({"dataset": data} | spec))


def server(name: str, **spec: Any) -> Manifest:
    """Return a valid ModelServer."""
    return modelserver(name, TENANT, **spec)


def path(kind: str, name: str = "", namespace: str = TENANT) -> str:
    """Return where objects of ours are kept."""
    return f"{FINETUNE}/{namespace}/{kind}" + (f"/{name}" if name else "")
