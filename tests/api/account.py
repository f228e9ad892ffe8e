"""The operator's account on a test's API server: what the chart installs, and a token for it."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster.control_plane import OPERATOR_NAMESPACE, Cluster
from cluster.layout import ROOT

CHART = ROOT / "charts" / "finetune-operator"
_SKIPPED_KINDS = {"Deployment", "CustomResourceDefinition", "ServiceMonitor", "PodMonitor"}
"""Not installed: the tests run the operator as a process, and they install the CRDs before it starts."""


@dataclass(frozen=True)
class Account:
    """A service account with its kubeconfig and its RBAC rules."""

    name: str
    kubeconfig: Path
    rights: frozenset[tuple[str, str, str]]
    """Rules that the chart grants: API group, resource with its subresource, verb."""

    @property
    def user(self) -> str:
        """User name of the account in requests and RBAC."""
        return f"system:serviceaccount:{OPERATOR_NAMESPACE}:{self.name}"

    @property
    def argument(self) -> str:
        """Operator argument: the namespace of the only Lease that the account may write."""
        return f"--namespace={OPERATOR_NAMESPACE}"


def install_account(cluster: Cluster, **values: Any) -> Account:
    """Install the chart without the operator's Deployment; return the operator's account."""
    make_namespace(cluster, OPERATOR_NAMESPACE)
    documents = [manifest for manifest in render_chart(cluster, **values) if manifest["kind"] not in _SKIPPED_KINDS]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    cluster.run_kubectl("apply", "--server-side", "-n", OPERATOR_NAMESPACE, "-f", "-", stdin=text)
    (name,) = [manifest["metadata"]["name"] for manifest in documents if manifest["kind"] == "ServiceAccount"]
    roles = list_operator_roles(documents)
    rights = frozenset(right for role in roles for rule in role["rules"] for right in _rights_of(rule))
    return Account(name, write_kubeconfig(cluster, OPERATOR_NAMESPACE, name), rights)


def render_chart(cluster: Cluster, **values: Any) -> list[dict[str, Any]]:
    """Return all manifests of the chart, rendered for the operator's namespace."""
    options = [f"--namespace={OPERATOR_NAMESPACE}", "--kube-version=1.36.0", "--values=-"]
    command: list[str | Path] = [cluster.helm, "template", "finetune-operator", CHART, *options]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def list_operator_roles(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the roles that the chart binds to the operator's account; the other ones are for users."""
    bindings = [manifest for manifest in documents if manifest["kind"] in ("ClusterRoleBinding", "RoleBinding")]
    bound = {(binding["roleRef"]["kind"], binding["roleRef"]["name"]) for binding in bindings}
    return [manifest for manifest in documents if (manifest["kind"], manifest["metadata"]["name"]) in bound]


def make_namespace(cluster: Cluster, name: str) -> None:
    """Create a namespace that admits restricted pods only."""
    cluster.run_kubectl("create", "-f", "-", stdin=json.dumps(build_namespace(name)))


def build_namespace(name: str) -> dict[str, Any]:
    """Return the manifest of a namespace that admits restricted pods only."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def write_kubeconfig(cluster: Cluster, namespace: str, account: str) -> Path:
    """Write a kubeconfig with a token of a service account; return its path."""
    token = cluster.run_kubectl("create", "token", account, "-n", namespace, "--duration=24h").strip()
    config = json.loads(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = cluster.directory / "kubeconfigs" / f"{namespace}.{account}"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


def read_requests(cluster: Cluster, account: Account) -> Iterator[dict[str, Any]]:
    """Return the operator's requests from the API server's audit log."""
    # The last line may still be incomplete.
    for line in cluster.audit_log.read_text().split("\n")[:-1]:
        request = json.loads(line)
        if request["user"]["username"] == account.user:
            yield request


def _rights_of(rule: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (group, resource, verb)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
