"""A real API server with its controllers and no node; the operator as a process; `player.py` simulates the pods."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from api.account import Account, install_account, make_namespace
from api.player import Player
from cluster.control_plane import Cluster, control_plane, install_crds
from finetune.local.ports import find_free_port
from operator_log import check_log
from waiting import wait_for

SETTINGS = {
    "images": {"trainer": "trainer:1", "serving": "serving:1"},
    # Longer than any wait of these tests: a change that the watches miss makes a test fail.
    "resyncSeconds": 600,
    # Namespaces are named after the tests that need the limits.
    "limits": {
        "namespaces": {
            "gpus-are-given-in-queue-order": {"gpus": 2},
            "a-suspended-job-frees-its-quota": {"jobs": 1},
            "six-jobs-at-once-run-two-at-a-time": {"jobs": 2},
        }
    },
}


class Operator:
    """An operator's process."""

    def __init__(
        self, kubeconfig: Path, directory: Path, *arguments: str, settings: dict[str, Any] | None = None
    ) -> None:
        self._kubeconfig, self._directory, self._arguments = kubeconfig, directory, arguments
        self._settings = SETTINGS | (settings or {})
        self._health_port, self._metrics_port = find_free_port(), find_free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the process."""
        settings = self._directory / "settings.yaml"
        settings.write_text(yaml.safe_dump(self._settings))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "finetune_operator",
                    f"--settings={settings}",
                    f"--health-port={self._health_port}",
                    f"--metrics-port={self._metrics_port}",
                    # There is no standby and nothing restarts the process: it must keep its Lease on a slow machine.
                    "--lease-seconds=300",
                    *self._arguments,
                ],
                env=os.environ | {"KUBECONFIG": str(self._kubeconfig), "POD_NAME": self._directory.name},
                stdout=log,
                stderr=log,
            )

    def wait_until_ready(self) -> None:
        """Wait until /readyz answers 200."""
        wait_for(self._is_ready, lambda: f"the operator: {self.log.read_text()[-3000:]}")

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Stop the process and return its exit status."""
        self.send(signum)
        return self.wait()

    def send(self, signum: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(signum)

    def wait(self) -> int:
        """Wait until the process ends and return its exit status."""
        assert self._process is not None
        return self._process.wait(30)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the process while the body makes several changes."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """Its log file."""
        return self._directory / "operator.log"

    @property
    def metrics_url(self) -> str:
        """URL of its metrics."""
        return f"http://127.0.0.1:{self._metrics_port}/metrics"

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        with urllib.request.urlopen(self.metrics_url, timeout=5) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}/readyz", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The API server with our CRDs."""
    # As on OpenShift: setting blockOwnerDeletion needs the right to update the owner's finalizers.
    with control_plane("OwnerReferencesPermissionEnforcement") as running:
        install_crds(running)
        yield running


@pytest.fixture(scope="session")
def account(cluster: Cluster) -> Account:
    """The operator's account, with the rights that the chart gives it."""
    return install_account(cluster)


@pytest.fixture(scope="session")
def operator(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The running operator. Its log must hold no unexpected error at the end."""
    running = Operator(account.kubeconfig, tmp_path_factory.mktemp("operator"), account.argument)
    running.start()
    yield running
    assert running.stop() == 0
    check_log(running.log.read_text())


@pytest.fixture(scope="session")
def player(cluster: Cluster) -> Iterator[Player]:
    """Simulates the pods of every namespace."""
    with Player(cluster) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """A namespace for one test, which admits restricted pods only."""
    test, _, parameters = request.node.name.removeprefix("test_").replace("_", "-").partition("[")
    name = test[:45].strip("-") + (f"-{zlib.crc32(parameters.encode()):08x}" if parameters else "")
    make_namespace(cluster, name)
    return str(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run test_rights.py last: it checks the audit log of the whole session."""
    items.sort(key=lambda item: item.path.name == "test_rights.py")


def finetunejob(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """Return a valid FineTuneJob; `spec` replaces whole groups of fields."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"uri": "pvc://models/base"},
            "dataset": {"train": {"uri": "configmap://data/train.jsonl"}},
            "method": {"sft": {}},
            "adapter": {"lora": {}},
        }
        | spec,
    }


def modelserver(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """Return a valid ModelServer; `spec` replaces whole groups of fields."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": "pvc://models/base"}} | spec,
    }


def apply(cluster: Cluster, manifest: dict[str, Any]) -> None:
    """Apply an object as a user would."""
    cluster.run_kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def get_all(cluster: Cluster, kind: str, namespace: str) -> list[dict[str, Any]]:
    """Return all objects of a kind in a namespace."""
    return list(json.loads(cluster.run_kubectl("get", kind, "-n", namespace, "-o", "json"))["items"])


def status_of(cluster: Cluster, namespace: str, name: str, kind: str = "finetunejob") -> dict[str, Any]:
    """Return an object's status."""
    manifest = json.loads(cluster.run_kubectl("get", kind, "-n", namespace, name, "-o", "json"))
    return dict(manifest.get("status", {}))


def condition_of(status: dict[str, Any], kind: str) -> tuple[str, str]:
    """Return status and reason of a condition; two empty strings where it is missing."""
    for condition in status.get("conditions", []):
        if condition["type"] == kind:
            return condition["status"], condition["reason"]
    return "", ""
