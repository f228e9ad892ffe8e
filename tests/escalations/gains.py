"""Finds in a pod template what no author of a FineTuneJob or ModelServer may get into a pod. No I/O."""

import re
from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]

_VOLUMES = {"emptyDir", "configMap", "secret", "persistentVolumeClaim", "downwardAPI"}
_FIELDS = {
    "automountServiceAccountToken",
    "containers",
    "dnsPolicy",
    "enableServiceLinks",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "restartPolicy",
    "schedulerName",
    "securityContext",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "affinity",
    "volumes",
}
_CONTAINER_FIELDS = {
    "args",
    "env",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
}
_COMMANDS = {"prepare", "train", "evaluate", "export", "serve"}
_FLAG = re.compile(r"--[a-z][a-z-]*=[^\n\r\0]*")
_ENV = re.compile(r"(HOME|HF_HOME|TMPDIR|[A-Z][A-Z0-9_]*)")
_FORBIDDEN_ENV = re.compile(r"LD_.*|PYTHON.*|PATH|BASH_ENV|ENV|NODE_OPTIONS|KUBE.*|HF_ENDPOINT|VLLM_.*|NCCL_.*")
_ROLES = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master", "node-role.kubernetes.io/etcd")


def find_gains(template: Manifest, images: set[str]) -> list[str]:
    """Return descriptions of all settings of a pod template that its author must not control."""
    return [*_in_metadata(template.get("metadata", {})), *_in_pod(template["spec"]), *_in_containers(template, images)]


def _in_metadata(metadata: Manifest) -> Iterator[str]:
    ours = ("finetune.dev/", "app.kubernetes.io/managed-by", "batch.kubernetes.io/", "job-name", "controller-uid")
    for kind in ("labels", "annotations"):
        for key in metadata.get(kind, {}):
            if not key.startswith((*ours, "kueue.x-k8s.io/queue-name", "pod-template-hash")):
                yield f"{kind} {key}"


def _in_pod(pod: Manifest) -> Iterator[str]:
    yield from (f"spec.{field}={pod[field]}" for field in pod.keys() - _FIELDS)
    if pod.get("automountServiceAccountToken") is not False:
        yield "a service account token"
    if pod.get("schedulerName", "default-scheduler") != "default-scheduler":
        yield "another scheduler"
    if pod.get("priorityClassName", "").startswith("system-"):
        yield f"the priority {pod['priorityClassName']}"
    if not pod.get("securityContext", {}).get("runAsNonRoot"):
        yield "root"
    kinds = {kind for volume in pod.get("volumes", []) for kind in volume.keys() - {"name"}}
    yield from (f"a volume of kind {kind}" for kind in kinds - _VOLUMES)
    for role in _ROLES:
        if role in pod.get("nodeSelector", {}) or role in [
            toleration.get("key") for toleration in pod.get("tolerations", [])
        ]:
            yield f"scheduling on {role}"
    if any(not toleration.get("key") for toleration in pod.get("tolerations", [])):
        yield "a toleration of everything"


def _in_containers(template: Manifest, images: set[str]) -> Iterator[str]:
    pod = template["spec"]
    if len(pod["containers"]) != 1:
        yield "an additional container"
    for container in pod["containers"]:
        for field in container.keys() - _CONTAINER_FIELDS:
            yield f"the container's {field}"
        if container["image"] not in images:
            yield f"the image {container['image']}"
        command, *flags = container.get("args") or [""]
        if command not in _COMMANDS:
            yield f"the command {command}"
        yield from (f"the argument {flag!r}" for flag in flags if not _FLAG.fullmatch(flag) or "$(" in flag)
        for variable in container.get("env", []):
            if not _ENV.fullmatch(variable["name"]) or _FORBIDDEN_ENV.fullmatch(variable["name"]):
                yield f"the variable {variable['name']}"
        security = container.get("securityContext", {})
        if (
            security.get("privileged")
            or security.get("allowPrivilegeEscalation") is not False
            or security.get("capabilities") != {"drop": ["ALL"]}
            or security.get("readOnlyRootFilesystem") is not True
        ):
            yield f"the security context {security}"
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["finetune-server"])
        if hook[0] != "finetune-server":
            yield f"the hook {hook}"
