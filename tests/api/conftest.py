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
from api.player import Player
from cluster.control_plane import Cluster, control_plane
from waiting import wait_for

SETTINGS = {
    "images": {"trainer": "trainer:1", "serving": "serving:1"},
    # So seldom that a change which the watches miss makes a test fail.
    "auditSeconds": 600,
}
HEALTH_PORT, METRICS_PORT = 18080, 19091


class Operator:
    """The operator's process."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._cluster, self._directory = cluster, directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it knows everything."""
        settings = self._directory / "settings.yaml"
        settings.write_text(yaml.safe_dump(SETTINGS))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "finetune_operator",
                    f"--settings={settings}",
                    f"--health-port={HEALTH_PORT}",
                    f"--metrics-port={METRICS_PORT}",
                ],
                env=os.environ | {"KUBECONFIG": str(self._cluster.kubeconfig)},
                stdout=log,
                stderr=log,
            )
        wait_for(self._is_ready, lambda: f"the operator: {self.log.read_text()[-3000:]}")

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and return its exit status."""
        assert self._process is not None
        self._process.send_signal(signum)
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
    def log(self) -> Path:
        """What it said."""
        return self._directory / "operator.log"

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{HEALTH_PORT}/readyz", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The API server with our kinds."""
    with control_plane() as running:
        running.run_kubectl("apply", "--server-side", "-f", str(Path(__file__).parents[2] / "crds"))
        running.run_kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        for kind in ("finetunejobs", "modelservers"):
            # Until its cache is filled the API server answers watches of a new kind with 429.
            running.run_kubectl("get", "--raw", f"/apis/finetune.dev/v1alpha1/{kind}?resourceVersion=0")
        yield running


@pytest.fixture(scope="session")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The running operator; at its end it must have told of no unexpected error."""
    running = Operator(cluster, tmp_path_factory.mktemp("operator"))
    running.start()
    yield running
    assert running.stop() == 0
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    errors = [line for line in lines if line["level"] == "error"]
    assert not errors, errors


@pytest.fixture(scope="session")
def player(cluster: Cluster) -> Iterator[Player]:
    """Plays the pods of every namespace."""
    with Player(cluster) as playing:
        yield playing


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """A namespace for one test."""
    test, _, parameters = request.node.name.removeprefix("test_").replace("_", "-").partition("[")
    name = test[:45].strip("-") + (f"-{zlib.crc32(parameters.encode()):08x}" if parameters else "")
    cluster.run_kubectl("create", "namespace", name)
    return str(name)


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
