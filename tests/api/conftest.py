"""A real API server with its controllers, without a node; the operator as a process; pods played by `player.py`."""

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
from operator_log import check_log
from ports import find_free_port
from waiting import wait_for

SETTINGS = {
    "images": {"trainer": "trainer:1", "serving": "serving:1"},
    # So seldom that a change which the watches miss makes a test fail.
    "resyncSeconds": 600,
    # By the names of the tests that need them.
    "limits": {
        "namespaces": {
            "gpus-go-round-in-order": {"gpus": 2},
            "a-suspended-job-makes-room-for-another": {"jobs": 1},
            "a-crowd-that-comes-at-once-is-let-in-by-twos": {"jobs": 2},
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
        """Start it and wait until it knows everything."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start it."""
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
                    # Nobody stands by, and nobody starts it again: a busy machine must not make it give up.
                    "--lease-seconds=300",
                    *self._arguments,
                ],
                env=os.environ | {"KUBECONFIG": str(self._kubeconfig), "POD_NAME": self._directory.name},
                stdout=log,
                stderr=log,
            )

    def wait_until_ready(self) -> None:
        """Wait until it knows everything."""
        wait_for(self._is_ready, lambda: f"the operator: {self.log.read_text()[-3000:]}")

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and return its exit status."""
        self.send(signum)
        return self.wait()

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(signum)

    def wait(self) -> int:
        """Wait until it ends and return its exit status."""
        assert self._process is not None
        return self._process.wait(30)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold it still while something happens that it would answer at once."""
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
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """What it said."""
        return self._directory / "operator.log"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus asks it."""
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
    """The API server with our kinds."""
    # As on OpenShift: an owner that blocks its deletion is named only by who may change its finalizers.
    with control_plane("OwnerReferencesPermissionEnforcement") as running:
        install_crds(running)
        yield running


@pytest.fixture(scope="session")
def account(cluster: Cluster) -> Account:
    """The operator's account, with the rights that the chart gives it."""
    return install_account(cluster)


@pytest.fixture(scope="session")
def operator(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The running operator; at its end it must have told of no unexpected error."""
    running = Operator(account.kubeconfig, tmp_path_factory.mktemp("operator"), account.argument)
    running.start()
    yield running
    assert running.stop() == 0
    check_log(running.log.read_text())


@pytest.fixture(scope="session")
def player(cluster: Cluster) -> Iterator[Player]:
    """Plays the pods of every namespace."""
    with Player(cluster) as playing:
        yield playing


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """A namespace for one test, which admits restricted pods only."""
    test, _, parameters = request.node.name.removeprefix("test_").replace("_", "-").partition("[")
    name = test[:45].strip("-") + (f"-{zlib.crc32(parameters.encode()):08x}" if parameters else "")
    make_namespace(cluster, name)
    return str(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what looks at the whole session's traces last."""
    items.sort(key=lambda item: item.path.name == "test_rights.py")


def finetunejob(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """Return a valid job; `spec` replaces whole groups of fields."""
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
    found = json.loads(cluster.run_kubectl("get", kind, "-n", namespace, name, "-o", "json"))
    return dict(found.get("status", {}))


def condition_of(status: dict[str, Any], kind: str) -> tuple[str, str]:
    """Return status and reason of a condition."""
    for condition in status.get("conditions", []):
        if condition["type"] == kind:
            return condition["status"], condition["reason"]
    return "", ""
