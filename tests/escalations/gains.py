"""What no author of a FineTuneJob or ModelServer may ever get into a pod. Pure: looks at what the API server holds."""

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
    """Return everything in a pod template that its author should not have got."""
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
        yield "a token of Kubernetes"
    if pod.get("schedulerName", "default-scheduler") != "default-scheduler":
        yield "another scheduler"
    if pod.get("priorityClassName", "").startswith("system-"):
        yield f"the priority {pod['priorityClassName']}"
    if not pod.get("securityContext", {}).get("runAsNonRoot"):
        yield "root"
    kinds = {kind for volume in pod.get("volumes", []) for kind in volume.keys() - {"name"}}
    yield from (f"a volume of kind {kind}" for kind in kinds - _VOLUMES)
    for role in _ROLES:
        if role in pod.get("nodeSelector", {}) or role in [one.get("key") for one in pod.get("tolerations", [])]:
            yield f"a place at {role}"
    if any(not one.get("key") for one in pod.get("tolerations", [])):
        yield "a toleration of everything"


def _in_containers(template: Manifest, images: set[str]) -> Iterator[str]:
    pod = template["spec"]
    if len(pod["containers"]) != 1:
        yield "a container more"
    for container in pod["containers"]:
        for field in container.keys() - _CONTAINER_FIELDS:
            yield f"the container's {field}"
        if container["image"] not in images:
            yield f"the image {container['image']}"
        command, *flags = container.get("args") or [""]
        if command not in _COMMANDS:
            yield f"the command {command}"
        yield from (f"the argument {flag!r}" for flag in flags if not _FLAG.fullmatch(flag) or "$(" in flag)
        for one in container.get("env", []):
            if not _ENV.fullmatch(one["name"]) or _FORBIDDEN_ENV.fullmatch(one["name"]):
                yield f"the variable {one['name']}"
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
