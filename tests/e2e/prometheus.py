"""Debian's Prometheus, which scrapes pods. Its build has no Kubernetes discovery, so a thread writes the targets."""

import json
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.packages import unpack_prometheus
from e2e.kubectl import Kubectl
from waiting import wait_for

_ADDRESS = "127.0.0.1:19090"
_PORTS = {"metrics", "http"}
"""Names of the container ports that offer /metrics."""


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the current series of a PromQL expression."""
        url = f"http://{_ADDRESS}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def wait_for_series(self, expression: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Wait until an expression has a series; return its series."""
        wait_for(lambda: bool(self.query(expression)), f"a series of {expression}", seconds)
        return self.query(expression)


@contextmanager
def run_prometheus(kubectl: Kubectl, directory: Path) -> Iterator[Prometheus]:
    """Run Prometheus with every pod's metric ports as its targets."""
    programs = unpack_prometheus()
    targets = directory / "targets.json"
    targets.write_text("[]")
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {"job_name": "pods", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
        ],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                programs / "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={_ADDRESS}",
            ],
            stdout=log,
            stderr=log,
        )
    stop = threading.Event()
    updater = threading.Thread(target=_update_targets, args=(kubectl, targets, stop))
    updater.start()
    try:
        running = Prometheus()
        wait_for(lambda: _is_ready(process), lambda: f"Prometheus: {(directory / 'log').read_text()}")
        yield running
    finally:
        stop.set()
        updater.join()
        process.terminate()
        process.wait(30)


def _update_targets(kubectl: Kubectl, targets: Path, stop: threading.Event) -> None:
    while not stop.wait(1):
        pods = json.loads(kubectl.run("get", "pods", "-A", "-o", "json"))["items"]
        content = json.dumps([target for pod in pods for target in _targets(pod)])
        if content != targets.read_text():
            partial = targets.with_suffix(".part")
            partial.write_text(content)
            partial.replace(targets)


def _targets(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    status = pod.get("status", {})
    if status.get("phase") != "Running" or "podIP" not in status:
        return
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", []):
            if port.get("name") in _PORTS:
                yield {
                    "targets": [f"{status['podIP']}:{port['containerPort']}"],
                    "labels": {"pod": pod["metadata"]["name"], "container": container["name"]},
                }


def _is_ready(process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "Prometheus ended"
    try:
        with urllib.request.urlopen(f"http://{_ADDRESS}/-/ready", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
