"""Installs the operator and a tenant's namespace on the node."""

import json
import subprocess
from pathlib import Path

from api.account import build_namespace
from cluster.control_plane import OPERATOR_NAMESPACE
from cluster.images import build_chart_values, build_image_annotation
from cluster.layout import ROOT
from cluster.storage import create_kept_volume
from e2e.jobs import conversations
from e2e.kubectl import Kubectl
from model.tiny import make_tiny_model

OPERATOR_LABEL = "app.kubernetes.io/name=finetune-operator"


def install_operator(kubectl: Kubectl) -> None:
    """Install the operator by its chart in a namespace that admits restricted pods only.

    The resync interval is longer than any wait: a change that the watches miss makes a test fail.
    """
    kubectl.apply(build_namespace(OPERATOR_NAMESPACE))
    values = {
        **build_chart_values(None),
        "podAnnotations": build_image_annotation(),
        "imagePullPolicy": "Never",
        "resyncSeconds": 600,
        "logLevel": "Debug",
    }
    command: list[str | Path] = [
        kubectl.cluster.helm,
        f"--kubeconfig={kubectl.cluster.kubeconfig}",
        "upgrade",
        "--install",
        "finetune-operator",
        ROOT / "charts/finetune-operator",
        f"--namespace={OPERATOR_NAMESPACE}",
        "--values=-",
        "--wait",
        "--timeout=2m",
    ]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def prepare_namespace(kubectl: Kubectl, name: str) -> Path:
    """Create a tenant's namespace that admits restricted pods only, with a base model and data.

    Returns:
        The directory on the node of the volume of its claim `models`.
    """
    directory = create_kept_volume(kubectl.cluster, "e2e-models")
    if not (directory / "tiny" / "config.json").exists():
        make_tiny_model(directory / "tiny")
        for path in directory.rglob("*"):
            path.chmod(0o755)
    kubectl.apply(
        build_namespace(name),
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": name},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "kept-e2e-models",
                "volumeName": "e2e-models",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "data", "namespace": name},
            "data": {"train.jsonl": conversations(40)},
        },
    )
    return directory


def artifact_directory(kubectl: Kubectl, namespace: str, uri: str) -> Path:
    """Return an artifact's directory on the node."""
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    bound_claim = kubectl.get("persistentvolumeclaim", namespace, claim)
    assert bound_claim is not None
    volume = json.loads(kubectl.run("get", "persistentvolume", bound_claim["spec"]["volumeName"], "-o", "json"))
    return Path(volume["spec"]["local"]["path"]) / path
