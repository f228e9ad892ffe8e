"""Starts and stops etcd, the API server, the controllers and the scheduler."""

import fcntl
import json
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from cluster import processes
from cluster.credentials import create_credentials, write_kubeconfigs
from cluster.layout import API_PORT, BIN, CACHE, ROOT, SERVICE_NETWORK, ClusterError
from cluster.packages import install_kubernetes

OPERATOR_NAMESPACE = "finetune-system"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{OPERATOR_NAMESPACE}"]},
        {"level": "None"},
    ],
}
"""Records the operator's requests and their response codes; ignores the requests of all others."""

_CONTROLLER_QPS = 1000
"""Requests a second that the controllers may send. High, so that they do not slow the tests down."""


@dataclass(frozen=True)
class Cluster:
    """A running API server, and how to connect to it."""

    directory: Path
    server: str

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        """The kubectl program."""
        return BIN / "kubectl"

    @property
    def helm(self) -> Path:
        """The Helm program."""
        return BIN / "helm"

    @property
    def audit_log(self) -> Path:
        """The audit log of requests by service accounts in `OPERATOR_NAMESPACE`, one JSON object per line."""
        return self.directory / "audit.log"

    @property
    def volumes(self) -> Path:
        """The directories behind the node's volumes."""
        return self.directory / "volumes"

    def run_kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return its output.

        Raises:
            ClusterError: kubectl failed; the message is its output.
        """
        done = subprocess.run(
            [self.kubectl, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


@dataclass(frozen=True)
class Ports:
    """The ports of one control plane."""

    api: int = API_PORT

    @property
    def etcd(self) -> int:
        """Client port of etcd; the next port is its peer port."""
        return self.api + 10

    @property
    def controllers(self) -> int:
        """Health port of the controllers."""
        return self.api + 12

    @property
    def scheduler(self) -> int:
        """Health port of the scheduler."""
        return self.api + 13


NODELESS_PORTS = Ports(API_PORT + 100)
"""Ports of a control plane without a node."""


def start_control_plane(
    directory: Path, address: str, ports: Ports, *, scheduler: bool, plugins: tuple[str, ...] = ()
) -> Cluster:
    """Start all processes that are not running and wait until the API server is ready.

    `plugins` are additional admission plugins.
    """
    install_kubernetes()
    for part in ("etcd", "pki", "kubeconfigs"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    cluster = Cluster(directory, f"https://{address}:{ports.api}")
    create_credentials(directory)
    (directory / "audit-policy.yaml").write_text(json.dumps(_AUDIT_POLICY))
    _start_etcd(directory, ports)
    _start_api_server(cluster, address, ports, plugins, is_endpoint=scheduler)
    processes.wait_until(lambda: is_ready(cluster), f"the API server (see {directory}/logs)", 120)
    write_kubeconfigs(directory, cluster.server)
    start_controllers(cluster, ports)
    if scheduler:
        _start_scheduler(directory, ports)
    processes.wait_until(lambda: _has_default_account(cluster), "the default service account", 60)
    return cluster


def start_controllers(cluster: Cluster, ports: Ports, requests_per_second: int = _CONTROLLER_QPS) -> None:
    """Start Kubernetes' own controllers, or restart them with another limit of requests to the API server."""
    processes.stop(cluster.directory, "kube-controller-manager")
    pki = cluster.directory / "pki"
    processes.start(
        cluster.directory,
        "kube-controller-manager",
        [
            BIN / "kube-controller-manager",
            f"--kubeconfig={cluster.directory / 'kubeconfigs' / 'controllers'}",
            f"--root-ca-file={pki / 'apiserver.crt'}",
            f"--service-account-private-key-file={pki / 'service-account.key'}",
            f"--secure-port={ports.controllers}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={cluster.directory / 'pki-controllers'}",
            "--leader-elect=false",
            f"--kube-api-qps={requests_per_second}",
            f"--kube-api-burst={requests_per_second * 3 // 2}",
        ],
    )


def _start_etcd(directory: Path, ports: Ports) -> None:
    client_url, peer_url = f"http://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.etcd + 1}"
    processes.start(
        directory,
        "etcd",
        [
            BIN / "etcd",
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
    )


def _start_api_server(
    cluster: Cluster, address: str, ports: Ports, plugins: tuple[str, ...], *, is_endpoint: bool
) -> None:
    """Start the API server; `is_endpoint`: the Service `kubernetes` gets its address."""
    directory = cluster.directory
    pki = directory / "pki"
    processes.start(
        directory,
        "kube-apiserver",
        [
            BIN / "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
            f"--bind-address={address}",
            f"--advertise-address={address}",
            f"--secure-port={ports.api}",
            f"--cert-dir={pki}",
            f"--token-auth-file={pki / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged",
            *([f"--enable-admission-plugins={','.join(plugins)}"] if plugins else []),
            f"--audit-policy-file={directory / 'audit-policy.yaml'}",
            f"--audit-log-path={cluster.audit_log}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'service-account.key'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--endpoint-reconciler-type=" + ("master-count" if is_endpoint else "none"),
        ],
    )


def _start_scheduler(directory: Path, ports: Ports) -> None:
    processes.start(
        directory,
        "kube-scheduler",
        [
            BIN / "kube-scheduler",
            f"--kubeconfig={directory / 'kubeconfigs' / 'scheduler'}",
            f"--secure-port={ports.scheduler}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={directory / 'pki-scheduler'}",
            "--leader-elect=false",
        ],
    )


def stop_control_plane(directory: Path) -> None:
    """Stop every process of a control plane."""
    for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
        processes.stop(directory, name)


@contextmanager
def control_plane(*plugins: str) -> Iterator[Cluster]:
    """Run a temporary API server with its controllers, without a node.

    `plugins` are additional admission plugins. All instances use the same ports, so to run several at once, put each in
    its own network namespace.
    """
    with _lock_directory() as directory:
        # A killed run may have left processes and data.
        stop_control_plane(directory)
        shutil.rmtree(directory, ignore_errors=True)
        try:
            yield start_control_plane(directory, "127.0.0.1", NODELESS_PORTS, scheduler=False, plugins=plugins)
        finally:
            stop_control_plane(directory)


@contextmanager
def _lock_directory() -> Iterator[Path]:
    """Yield the first directory that no other process has locked, and lock it."""
    CACHE.mkdir(exist_ok=True)
    for number in count():
        directory = CACHE / f"control-plane-{number}"
        with directory.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield directory
            return


def install_crds(cluster: Cluster) -> None:
    """Install the CustomResourceDefinitions, and wait until the API server serves them."""
    cluster.run_kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cluster.run_kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    for kind in ("finetunejobs", "modelservers"):
        # The API server answers watches of a new kind with 429 until its watch cache is filled.
        cluster.run_kubectl("get", "--raw", f"/apis/finetune.dev/v1alpha1/{kind}?resourceVersion=0")


def is_ready(cluster: Cluster) -> bool:
    """Return whether the API server's `/readyz` returns 200."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    token = (cluster.directory / "pki" / "admin.token").read_text()
    request = urllib.request.Request(f"{cluster.server}/readyz", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=2, context=context) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _has_default_account(cluster: Cluster) -> bool:
    try:
        cluster.run_kubectl("get", "serviceaccount", "default", "-o", "name")
    except ClusterError:
        return False
    return True
