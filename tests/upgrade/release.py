"""A release: installs its chart with Helm, and runs its operator with the arguments and rights of its Deployment."""

import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster.control_plane import Cluster
from cluster.layout import ROOT
from finetune.local.ports import find_free_port
from waiting import wait_for

NAME, NAMESPACE = "finetune-operator", "finetune-system"


@dataclass(frozen=True)
class Release:
    """The files of a release: chart, API and operator."""

    root: Path

    @property
    def chart(self) -> Path:
        """The directory of its chart."""
        return self.root / "charts" / "finetune-operator"

    @property
    def crds(self) -> Path:
        """The directory of its CustomResourceDefinitions."""
        return self.chart / "files" / "crds"

    @property
    def fields(self) -> set[str]:
        """The fields of a FineTuneJob's spec."""
        (version,) = yaml.safe_load((self.crds / "finetunejobs.yaml").read_text())["spec"]["versions"]
        return set(version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])

    @property
    def python_path(self) -> str:
        """PYTHONPATH of its API and its operator, which takes precedence over the environment."""
        return os.pathsep.join(str(self.root / part / "src") for part in ("crds", "operator"))


CURRENT = Release(ROOT)


def unpack_previous(directory: Path) -> Release:
    """Unpack the archive of the previous release; return the release."""
    (archive_path,) = Path(__file__).parent.glob("previous-*.tar.gz")
    with tarfile.open(archive_path) as archive:
        archive.extractall(directory, filter="data")
    release = Release(directory)
    version = yaml.safe_load((release.chart / "Chart.yaml").read_text())["version"]
    assert archive_path.name == f"previous-{version}.tar.gz"
    return release


def run_helm(cluster: Cluster, *arguments: str, values: dict[str, Any] | None = None) -> None:
    """Run Helm in the operator's namespace, and wait until the API server serves the CRDs of the chart."""
    connection = f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}"
    values_options = ("--values=-",) if values is not None else ()
    done = subprocess.run(
        [str(cluster.helm), *arguments, *connection, *values_options],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cluster.run_kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    for kind in ("finetunejobs", "modelservers"):
        # The API server answers watches of a new kind with 429 until its cache is filled.
        cluster.run_kubectl("get", "--raw", f"/apis/finetune.dev/v1alpha1/{kind}?resourceVersion=0")


class Operator:
    """The operator of a release, started with the arguments, the settings and the account of the chart's Deployment."""

    def __init__(self, cluster: Cluster, release: Release, directory: Path) -> None:
        """Prepare the operator of a release; its files go to a directory."""
        self._cluster, self._release, self._directory = cluster, release, directory
        self._health, self._metrics = find_free_port(), find_free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the operator with the current Deployment's arguments, and wait until it is ready."""
        self._directory.mkdir(parents=True)
        deployment = json.loads(self._cluster.run_kubectl("get", "deployment", NAME, "-n", NAMESPACE, "-o", "json"))
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        environment = os.environ | {
            "PYTHONPATH": self._release.python_path,
            "KUBECONFIG": str(self._write_kubeconfig(pod["serviceAccountName"])),
            **{variable["name"]: self._value_of(variable) for variable in container.get("env", [])},
        }
        python = [sys.executable, "-m", "finetune_operator"]
        module_files = subprocess.run(
            [
                sys.executable,
                "-c",
                "import finetune_api, finetune_operator as o; print(finetune_api.__file__, o.__file__)",
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert all(Path(path).is_relative_to(self._release.root) for path in module_files), module_files
        ports = [f"--health-port={self._health}", f"--metrics-port={self._metrics}"]
        with self.log.open("wb") as log:
            arguments = self._write_config_maps(pod, container)
            self._process = subprocess.Popen([*python, *arguments, *ports], env=environment, stdout=log, stderr=log)
        wait_for(self._is_ready, lambda: f"the operator: {self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        """Stop the operator and check that its log has no error."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        assert self._process.wait(30) == 0, self.log.read_text()[-3000:]
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        errors = [line for line in lines if line["level"] == "error"]
        assert not errors, errors

    @property
    def log(self) -> Path:
        """Its log file."""
        return self._directory / "operator.log"

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ", f"{name},"))
        )

    def wait_until_quiet(self, objects: int) -> None:
        """Wait until the operator has reconciled this many objects and its queue is empty."""

        def is_quiet() -> bool:
            reconciliations = self.metric("finetune_operator_reconcile_seconds_count")
            return reconciliations >= objects and self.metric("finetune_operator_queue_depth") == 0

        wait_for(is_quiet, lambda: f"an empty queue of the operator: {self.log.read_text()[-3000:]}")

    def _write_config_maps(self, pod: dict[str, Any], container: dict[str, Any]) -> list[str]:
        """Write the ConfigMaps that the container mounts to files; return the arguments with their local paths."""
        arguments = list(container["args"])
        sources = {volume["name"]: volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
        for mount in container["volumeMounts"]:
            if mount["name"] in sources:
                directory = self._directory / mount["name"]
                directory.mkdir()
                name = sources[mount["name"]]
                config_map = json.loads(
                    self._cluster.run_kubectl("get", "configmap", name, "-n", NAMESPACE, "-o", "json")
                )
                for key, text in config_map["data"].items():
                    (directory / key).write_text(text)
                arguments = [argument.replace(mount["mountPath"], str(directory)) for argument in arguments]
        return arguments

    def _value_of(self, variable: dict[str, Any]) -> str:
        """Return the value of a container's variable, with fieldRefs resolved as a kubelet does."""
        fields = {"metadata.name": self._directory.name, "metadata.namespace": NAMESPACE, "status.podIP": "127.0.0.1"}
        if "valueFrom" not in variable:
            return str(variable.get("value", ""))
        return fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]

    def _write_kubeconfig(self, account: str) -> Path:
        """Write a kubeconfig with a token of its service account, so that only the chart's rights apply."""
        config = json.loads(self._cluster.kubeconfig.read_text())
        token = self._cluster.run_kubectl("create", "token", account, "-n", NAMESPACE).strip()
        for user in config["users"]:
            user["user"] = {"token": token}
        for context in config["contexts"]:
            context["context"]["namespace"] = NAMESPACE
        path = self._directory / "kubeconfig"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        return path

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/readyz", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False
