"""The operator's RBAC rules: this tier uses each of them, and no request is denied. Runs last."""

import json
from typing import Any

import pytest
from api.account import Account, read_requests, write_kubeconfig
from api.conftest import Operator, apply, finetunejob, get_all, modelserver
from api.player import Player, succeed
from cluster.control_plane import Cluster
from cluster.layout import ClusterError
from waiting import wait_for

Right = tuple[str, str, str]


def right_of(request: dict[str, Any]) -> Right | None:
    """Return the right that a request needs; None for requests without an object, such as API discovery."""
    reference = request.get("objectRef")
    if reference is None:
        return None
    subresource = f"/{reference['subresource']}" if "subresource" in reference else ""
    return reference.get("apiGroup", ""), reference["resource"] + subresource, request["verb"]


def find_used(requests: list[dict[str, Any]]) -> set[Right]:
    """Return every right that was used. A server-side apply that creates an object needs `create` too."""
    used: set[Right] = set()
    for request in requests:
        right = right_of(request)
        if right:
            used.add(right)
            if right[2] == "patch" and request.get("responseStatus", {}).get("code") == 201:
                used.add((*right[:2], "create"))
    return used


def is_for_owners(right: Right) -> bool:
    """Return whether only the admission of owner references checks a right, so that no request shows it."""
    return right[1].endswith("/finalizers") and right[2] == "update"


def test_edits_of_children_are_reverted(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    """Uses the rights that the operator needs only to repair objects."""
    held = ["Train"]
    player.play(
        namespace, lambda pod: None if pod["metadata"]["labels"]["finetune.dev/stage"] in held else succeed(pod)
    )
    apply(cluster, finetunejob("job", namespace, serving={"modelName": "bot", "template": {}}))
    selector = "finetune.dev/stage=Train"
    wait_for(lambda: bool(list_names(cluster, namespace, "jobs", "-l", selector)), "the training")
    labels = [f"{label}-" for label in ("finetune.dev/owned", "finetune.dev/job")]
    (training,) = list_names(cluster, namespace, "jobs", "-l", selector)
    cluster.run_kubectl("label", "-n", namespace, f"job/{training}", *labels)
    wait_for(
        lambda: list_names(cluster, namespace, "jobs", "-l", "finetune.dev/job,finetune.dev/stage=Train") == [training],
        "labels",
    )
    check_repair(cluster, namespace, "networkpolicy/finetune-stages", {"ingress": [{}]})
    held.clear()
    wait_for(lambda: bool(list_names(cluster, namespace, "networkpolicy/job", "--ignore-not-found")), "the server")
    check_repair(cluster, namespace, "networkpolicy/job", {"ingress": [{}]})
    check_repair(cluster, namespace, "poddisruptionbudget/job", {"maxUnavailable": 2})
    check_repair(cluster, namespace, "service/job", {"selector": {"finetune.dev/server": "other"}})


def check_repair(cluster: Cluster, namespace: str, name: str, change: dict[str, Any]) -> None:
    """Change an object's spec and wait until the operator restores it."""
    before = read_spec(cluster, namespace, name)
    cluster.run_kubectl("patch", "-n", namespace, name, "--type=merge", "-p", json.dumps({"spec": change}))
    wait_for(lambda: read_spec(cluster, namespace, name) == before, f"{name} to be restored")


def list_names(cluster: Cluster, namespace: str, *arguments: str) -> list[str]:
    """Return the names of the objects that `kubectl get` lists."""
    lines = cluster.run_kubectl("get", "-n", namespace, *arguments, "-o", "name").split()
    return [line.partition("/")[2] for line in lines]


def read_spec(cluster: Cluster, namespace: str, name: str) -> Any:
    """Return an object's spec."""
    return json.loads(cluster.run_kubectl("get", "-n", namespace, name, "-o", "json"))["spec"]


def test_no_request_was_denied(cluster: Cluster, account: Account) -> None:
    requests = list(read_requests(cluster, account))
    assert len(requests) > 100
    denied = [
        (request["verb"], request["requestURI"])
        for request in requests
        if request["annotations"].get("authorization.k8s.io/decision") != "allow"
    ]
    assert not denied


def test_every_right_is_used(cluster: Cluster, account: Account) -> None:
    used = find_used(list(read_requests(cluster, account)))
    needed = {right for right in account.rights if not is_for_owners(right)}
    assert sorted(needed - used) == []
    assert account.rights.isdisjoint({(group, "secrets", verb) for group, _, verb in account.rights})


def test_owner_references_need_the_right_to_update_finalizers(
    cluster: Cluster, account: Account, namespace: str
) -> None:
    apply(cluster, finetunejob("job", namespace))
    apply(cluster, modelserver("server", namespace))
    rights = {right for right in account.rights if is_for_owners(right)}
    assert {resource for _, resource, _ in rights} == {"finetunejobs/finalizers", "modelservers/finalizers"}
    lesser = make_account(cluster, account.rights - rights)
    for kind in ("finetunejobs", "modelservers"):
        (owner,) = get_all(cluster, kind, namespace)
        child = build_child(namespace, owner)
        assert create(cluster, account.kubeconfig.name, child) == ""
        assert "cannot set blockOwnerDeletion" in create(cluster, lesser, child)


def make_account(cluster: Cluster, rights: frozenset[Right]) -> str:
    """Create an account with the given rights; return the name of its kubeconfig."""
    rules = [{"apiGroups": [group], "resources": [resource], "verbs": [verb]} for group, resource, verb in rights]
    name = "lesser"
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
    for manifest in (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [subject],
        },
    ):
        apply(cluster, manifest)
    return write_kubeconfig(cluster, "default", name).name


def build_child(namespace: str, owner: dict[str, Any]) -> dict[str, Any]:
    """Return a ConfigMap with an owner reference like those of the operator's children."""
    reference = {key: owner[key] for key in ("apiVersion", "kind")}
    reference |= {key: owner["metadata"][key] for key in ("name", "uid")}
    reference |= {"controller": True, "blockOwnerDeletion": True}
    metadata = {"name": "child", "namespace": namespace, "ownerReferences": [reference]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def create(cluster: Cluster, kubeconfig: str, manifest: dict[str, Any]) -> str:
    """Try to create an object as an account; return the refusal, or an empty string."""
    path = cluster.directory / "kubeconfigs" / kubeconfig
    try:
        arguments = ("create", "--dry-run=server", "-f", "-")
        cluster.run_kubectl(f"--kubeconfig={path}", *arguments, stdin=json.dumps(manifest))
    except ClusterError as error:
        return str(error)
    return ""


def test_every_pod_was_admitted_as_restricted(cluster: Cluster, operator: object) -> None:
    """PodSecurity reports a refused pod in an event of its Job or ReplicaSet."""
    namespaces = json.loads(cluster.run_kubectl("get", "namespaces", "-o", "json"))["items"]
    label = "pod-security.kubernetes.io/enforce"
    enforced = {
        item["metadata"]["name"] for item in namespaces if item["metadata"]["labels"].get(label) == "restricted"
    }
    pods = json.loads(cluster.run_kubectl("get", "pods", "-A", "-o", "json"))["items"]
    ours = [pod for pod in pods if pod["metadata"]["labels"].get("app.kubernetes.io/managed-by") == "finetune-operator"]
    assert len(ours) > 10
    assert {pod["metadata"]["namespace"] for pod in ours} <= enforced
    events = json.loads(cluster.run_kubectl("get", "events", "-A", "-o", "json"))["items"]
    refused = [event["message"] for event in events if event.get("reason") == "FailedCreate"]
    assert not [message for message in refused if "PodSecurity" in message]
    namespace = ours[0]["metadata"]["namespace"]
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        cluster.run_kubectl("run", "x", "--image=x", "--dry-run=server", "-n", namespace)
