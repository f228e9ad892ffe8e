"""Requests that the API server itself must refuse: the tenant has no right to them."""

from collections.abc import Iterator
from typing import Any

from escalations.scene import OTHERS, REFUSED, SUCCEEDED, TENANT, VICTIM, Attempt, Scene, job, path, server

_MERGE = "application/merge-patch+json"
_CORE, _APPS, _BATCH = f"/api/v1/namespaces/{TENANT}", f"/apis/apps/v1/namespaces/{TENANT}", "/apis/batch/v1/namespaces"
_SYSTEM = "/api/v1/namespaces/finetune-system"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_STATUS = {
    "status": {
        "conditions": [],
        "artifact": {"uri": "pvc://others/x", "digest": "sha256:" + "0" * 64, "bytes": 1},
    }
}
_POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
_POD["spec"] = {"containers": [{"name": "x", "image": "x"}]}
_EVENT = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "x", "namespace": TENANT}}
_SERVER = server("x")
CALLS: tuple[tuple[str, str, Any], ...] = (
    ("GET", f"{_CORE}/secrets", None),
    ("GET", f"{_CORE}/secrets/{OTHERS}", None),
    ("GET", f"{_CORE}/configmaps/{OTHERS}", None),
    ("GET", f"/api/v1/namespaces/{VICTIM}/secrets/{OTHERS}", None),
    ("POST", f"{_CORE}/configmaps", {"metadata": {"name": "x-routes"}}),
    ("POST", f"{_CORE}/pods", _POD),
    ("POST", f"{_CORE}/persistentvolumeclaims", {"metadata": {"name": "x"}}),
    ("GET", f"{_CORE}/pods", None),
    ("GET", f"{_CORE}/pods/x/log", None),
    ("POST", f"{_CORE}/pods/x/exec?command=sh", None),
    ("GET", f"{_APPS}/deployments", None),
    ("POST", f"{_BATCH}/{TENANT}/jobs", {"metadata": {"name": "x"}}),
    ("PATCH", f"{_BATCH}/{TENANT}/jobs/x", {"spec": {"suspend": True}}),
    ("POST", f"/apis/events.k8s.io/v1/namespaces/{TENANT}/events", _EVENT),
    ("GET", path("finetunejobs", "job", VICTIM), None),
    ("POST", path("finetunejobs", namespace=VICTIM), job("x", VICTIM)),
    ("POST", path("finetunejobs"), job("x", VICTIM)),
    ("POST", path("modelservers", namespace=VICTIM), _SERVER | {"metadata": {"name": "x", "namespace": VICTIM}}),
    ("DELETE", path("finetunejobs", "job", VICTIM), None),
    ("GET", "/apis/finetune.dev/v1alpha1/finetunejobs", None),
    ("PATCH", path("finetunejobs", "job") + "/status", _STATUS),
    ("PATCH", path("modelservers", "prod") + "/status", {"status": {"endpoint": "http://evil/v1"}}),
    ("DELETE", path("finetunejobs"), None),
    ("PATCH", "/api/v1/namespaces/tenant", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}}),
    ("GET", f"{_SYSTEM}/configmaps/finetune-operator", None),
    ("PATCH", f"{_SYSTEM}/configmaps/finetune-operator", {"data": {"settings.yaml": "images: {trainer: evil}"}}),
    ("POST", f"{_SYSTEM}/serviceaccounts/finetune-operator/token", {"spec": {}}),
    ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/finetune-system/leases/finetune-operator", {"spec": {}}),
    ("POST", f"{_RBAC}/namespaces/{TENANT}/rolebindings", {"metadata": {"name": "x"}}),
    ("PATCH", f"{_RBAC}/clusterroles/finetune-operator", {"rules": []}),
    (
        "DELETE",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/finetune-operator-finetunejobs",
        None,
    ),
    (
        "PATCH",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/finetunejobs.finetune.dev",
        {"spec": {"names": {"kind": "X"}}},
    ),
    ("GET", "/api/v1/nodes", None),
    ("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "x"}, "value": 1}),
)


def attempt_calls(scene: Scene) -> Iterator[Attempt]:
    """Send each request as the tenant."""
    for method, url, body in CALLS:
        answer = scene.tenant.call(method, url, body, _MERGE if method == "PATCH" else "application/json")
        # A body with another namespace than the path gives 400.
        outcome = REFUSED if answer.code in (400, 403) else SUCCEEDED
        yield Attempt(f"{method} {url}", outcome, f"{answer.code}: {answer.message}")
    for user in ("admin", "system:serviceaccount:finetune-system:finetune-operator"):
        answer = scene.tenant.call("GET", f"{_CORE}/secrets", Impersonate_User=user)
        yield Attempt(f"impersonating {user}", REFUSED if answer.code == 403 else SUCCEEDED, answer.message)
    yield from _attempt_status(scene)


def _attempt_status(scene: Scene) -> Iterator[Attempt]:
    """Write a status with the spec: the API server must drop it, so that the job starts with its first stage."""
    condition = {"type": "Evaluated", "status": "True", "reason": "GatesPassed", "message": ""}
    conditions = [
        condition | {"type": kind, "lastTransitionTime": "2020-01-01T00:00:00Z"} for kind in ("Trained", "Evaluated")
    ]
    forged = _STATUS["status"] | {"conditions": conditions, "stage": "Serve"}
    for number, manifest in enumerate((job("status-0"), server("status-1"))):
        answer = scene.tenant.create(manifest | {"status": forged})
        assert not answer.is_refused, answer.message
        description = f"a status given with the spec of a {manifest['kind']}"
        scene.wait_for_operator([manifest])
        status = scene.admin.get(manifest)["status"]
        kept = "pvc://others/x" in str(status) or "2020-01-01" in str(status)
        yield Attempt(
            description, SUCCEEDED if kept else "declined", f"{number}: {status.get('stage', status.get('reason'))}"
        )
        plural = f"{manifest['kind'].lower()}s"
        url = path(plural, manifest["metadata"]["name"])
        body = {"status": {"artifact": {"uri": "pvc://others/y"}, "endpoint": "http://evil"}}
        scene.tenant.call("PATCH", url, body, _MERGE)
        kept = "others/y" in str(scene.admin.get(manifest)) or "evil" in str(scene.admin.get(manifest))
        yield Attempt(f"a status patched with a {manifest['kind']}", SUCCEEDED if kept else "declined", "dropped")
