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
_NOT_HERE = {"Deployment", "CustomResourceDefinition", "ServiceMonitor", "PodMonitor"}
"""The operator is a process of the test's, and the kinds are installed before it."""


@dataclass(frozen=True)
class Account:
    """A service account, and what is needed to speak as it."""

    name: str
    kubeconfig: Path
    rights: frozenset[tuple[str, str, str]]
    """What the chart grants: API group, resource with its subresource, verb."""

    @property
    def user(self) -> str:
        """The name by which the API server knows it."""
        return f"system:serviceaccount:{OPERATOR_NAMESPACE}:{self.name}"

    @property
    def argument(self) -> str:
        """Where the operator finds the only Lease that it may write."""
        return f"--namespace={OPERATOR_NAMESPACE}"


def install_account(cluster: Cluster, **values: Any) -> Account:
    """Install everything of the chart but the operator itself; return the operator's account."""
    make_namespace(cluster, OPERATOR_NAMESPACE)
    documents = [one for one in render_chart(cluster, **values) if one["kind"] not in _NOT_HERE]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    cluster.run_kubectl("apply", "--server-side", "-n", OPERATOR_NAMESPACE, "-f", "-", stdin=text)
    (name,) = [one["metadata"]["name"] for one in documents if one["kind"] == "ServiceAccount"]
    roles = [one for one in documents if one["kind"] in ("ClusterRole", "Role")]
    rights = frozenset(right for role in roles for rule in role["rules"] for right in _rights_of(rule))
    return Account(name, write_kubeconfig(cluster, OPERATOR_NAMESPACE, name), rights)


def render_chart(cluster: Cluster, **values: Any) -> list[dict[str, Any]]:
    """Return everything that the chart makes, as it is installed in the operator's namespace."""
    options = [f"--namespace={OPERATOR_NAMESPACE}", "--kube-version=1.36.0", "--values=-"]
    command: list[str | Path] = [cluster.helm, "template", "finetune-operator", CHART, *options]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def make_namespace(cluster: Cluster, name: str) -> None:
    """Make a namespace that admits restricted pods only."""
    cluster.run_kubectl("create", "-f", "-", stdin=json.dumps(build_namespace(name)))


def build_namespace(name: str) -> dict[str, Any]:
    """Return a namespace that admits restricted pods only."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def write_kubeconfig(cluster: Cluster, namespace: str, account: str) -> Path:
    """Return a kubeconfig that speaks as a service account."""
    token = cluster.run_kubectl("create", "token", account, "-n", namespace, "--duration=24h").strip()
    config = json.loads(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = cluster.directory / "kubeconfigs" / f"{namespace}.{account}"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


def read_requests(cluster: Cluster, account: Account) -> Iterator[dict[str, Any]]:
    """Return what the operator asked the API server for."""
    # What is written just now has no end of its line yet.
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
