"""The common parts of all pods: restricted security context, volumes, credentials; no service account token."""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from finetune_api.compute import Placement, Resources
from finetune_api.contract.mounts import (
    CLAIMS,
    CONFIG_MAPS,
    OPTIONAL_KEYS,
    REQUIRED_KEYS,
    SCRATCH,
    Source,
    credential_variable,
)
from finetune_api.data import DataSource
from finetune_api.modelserver import Model
from finetune_api.output import Bucket, HubRepository
from finetune_api.uris import parse_uri

from finetune_operator.kube.kinds import Manifest
from finetune_operator.settings import Settings

Remote = Model | DataSource | Bucket | HubRepository
"""A source or destination that can have a Secret."""
USER = 65532
"""Numeric user of all our images."""


def build_pod_spec(
    settings: Settings,
    placement: Placement,
    container: Manifest,
    volumes: "Volumes",
    env: list[dict[str, Any]],
) -> Manifest:
    """Return the spec of a pod that the `restricted` Pod Security Standard admits.

    `container` holds the fields that differ: name, image, args, ports, probes.
    """
    on_gpu = placement.resources.gpus > 0
    gpu_tolerations = [toleration.to_dict() for toleration in settings.gpu.tolerations] if on_gpu else []
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": (settings.gpu.node_selector if on_gpu else {}) | placement.node_selector,
        "tolerations": gpu_tolerations + [toleration.to_dict() for toleration in placement.tolerations],
        "imagePullSecrets": [{"name": name} for name in settings.images.pull_secrets],
        "volumes": volumes.volumes,
        "containers": [container | _build_common(settings, placement, volumes, env)],
    }
    if placement.priority_class_name:
        spec["priorityClassName"] = placement.priority_class_name
    return spec


def _build_common(settings: Settings, placement: Placement, volumes: "Volumes", env: list[dict[str, Any]]) -> Manifest:
    """Return the fields that all our containers share."""
    return {
        "imagePullPolicy": settings.images.pull_policy,
        "env": [
            {"name": "HOME", "value": str(SCRATCH)},
            {"name": "HF_HOME", "value": str(SCRATCH / "huggingface")},
            {"name": "TMPDIR", "value": str(SCRATCH)},
            *env,
        ],
        "resources": build_resources(settings, placement.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": volumes.mounts,
    }


def build_resources(settings: Settings, resources: Resources) -> Manifest:
    """Return requests and limits: equal, except that CPU has no limit, so that idle cores can be used."""
    limited = {"memory": resources.memory}
    if resources.gpus:
        limited[settings.gpu.resource_name] = str(resources.gpus)
    return {"requests": {"cpu": resources.cpu} | limited, "limits": limited}


def build_credential_env(sources: Mapping[Source, Remote]) -> list[dict[str, Any]]:
    """Return environment variables that refer to the keys of each source's Secret; the operator never reads them."""
    env = []
    for source, remote in sources.items():
        if remote.secret_ref is None:
            continue
        scheme = parse_uri(remote.uri).scheme
        required, optional = REQUIRED_KEYS.get(scheme, ()), OPTIONAL_KEYS.get(scheme, ())
        for key in (*required, *optional):
            reference = {"name": remote.secret_ref.name, "key": key} | ({"optional": True} if key in optional else {})
            env.append({"name": credential_variable(source, key), "valueFrom": {"secretKeyRef": reference}})
    return env


class Volumes:
    """The volumes and mounts of one pod, writable or read-only."""

    def __init__(self, writable: Iterable[str] = (), readable: Iterable[str] = ()) -> None:
        """Mount the claims and ConfigMaps that URIs name.

        Args:
            writable: `pvc://` URIs that the pod writes below.
            readable: URIs that the pod reads; other schemes than `pvc` and `configmap` need no mount.
        """
        self.volumes: list[Manifest] = [
            {"name": "scratch", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ]
        self.mounts: list[Manifest] = [
            {"name": "scratch", "mountPath": str(SCRATCH)},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - where torch expects it
        ]
        written = {parse_uri(uri).authority for uri in writable}
        parsed = [parse_uri(uri) for uri in readable]
        read = {uri.authority for uri in parsed if uri.scheme == "pvc"} - written
        self.claims = sorted(written | read)
        """Names of the mounted claims."""
        for number, claim in enumerate(self.claims):
            source = {"persistentVolumeClaim": {"claimName": claim}}
            self._add(f"claim-{number}", source, str(CLAIMS / claim), read_only=claim in read)
        self.config_maps = sorted({uri.authority for uri in parsed if uri.scheme == "configmap"})
        """Names of the mounted ConfigMaps."""
        for number, name in enumerate(self.config_maps):
            self._add(f"data-{number}", {"configMap": {"name": name}}, str(CONFIG_MAPS / name), read_only=True)

    def add_claim(self, name: str, claim: str, path: str) -> None:
        """Mount a user's claim, writable."""
        self._add(name, {"persistentVolumeClaim": {"claimName": claim}}, path, read_only=False)

    def add_config_map(self, name: str, config_map: str, path: str) -> None:
        """Mount a ConfigMap, read-only."""
        self._add(name, {"configMap": {"name": config_map}}, path, read_only=True)

    def add_annotation(self, name: str, annotation: str, file: PurePosixPath) -> None:
        """Mount an annotation of the pod as a file."""
        item = {"path": file.name, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
        self._add(name, {"downwardAPI": {"items": [item]}}, str(file.parent), read_only=True)

    def add_secret(self, name: str, secret: str, path: str) -> None:
        """Mount a user's Secret as files, read-only."""
        self._add(name, {"secret": {"secretName": secret}}, path, read_only=True)

    def _add(self, name: str, source: Manifest, path: str, *, read_only: bool) -> None:
        self.volumes.append({"name": name} | source)
        self.mounts.append({"name": name, "mountPath": path, "readOnly": read_only})
