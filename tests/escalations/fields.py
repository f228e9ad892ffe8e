"""Pod fields that the API does not have, at every level of both specs."""

import copy
from collections.abc import Iterator
from typing import Any

from escalations.scene import DECLINED, REFUSED, SUCCEEDED, Attempt, Manifest, Scene, job, server

_ROOT = {"privileged": True, "runAsUser": 0, "allowPrivilegeEscalation": True, "capabilities": {"add": ["SYS_ADMIN"]}}
_HOST = {"name": "host", "hostPath": {"path": "/"}}
_CONTAINER = {"name": "evil", "image": "evil", "command": ["sh"], "securityContext": _ROOT}
_POD = {"spec": {"hostNetwork": True, "containers": [_CONTAINER], "volumes": [_HOST]}}
POD_FIELDS: dict[str, Any] = {
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "hostPath": "/",
    "privileged": True,
    "securityContext": _ROOT,
    "podSecurityContext": _ROOT,
    "serviceAccountName": "finetune-operator",
    "serviceAccount": "finetune-operator",
    "automountServiceAccountToken": True,
    "image": "evil",
    "images": {"trainer": "evil", "serving": "evil"},
    "imagePullSecrets": [{"name": "others"}],
    "command": ["sh"],
    "args": ["-c", "id"],
    "extraArgs": ["--trust-remote-code"],
    "trustRemoteCode": True,
    "env": [{"name": "LD_PRELOAD", "value": "/scratch/x.so"}, {"name": "PYTHONPATH", "value": "/claims"}],
    "envFrom": [{"secretRef": {"name": "others"}}],
    "volumes": [_HOST],
    "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    "initContainers": [_CONTAINER],
    "containers": [_CONTAINER],
    "sidecars": [_CONTAINER],
    "ephemeralContainers": [_CONTAINER],
    "podTemplate": _POD,
    "podSpec": _POD["spec"],
    "template": _POD,
    "overrides": _POD,
    "runtimeClassName": "evil",
    "schedulerName": "evil",
    "nodeName": "node",
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["huggingface.co"]}],
    "dnsConfig": {"nameservers": ["10.0.0.1"]},
    "shareProcessNamespace": True,
    "lifecycle": {"preStop": {"exec": {"command": ["sh"]}}},
    "labels": {"finetune.dev/server": "prod"},
    "annotations": {"sidecar.istio.io/inject": "true"},
    "namespace": "victim",
}
_SERVING = {"modelName": "bot", "template": {}}
LEVELS: tuple[tuple[Manifest, tuple[str, ...]], ...] = (
    *(
        (job("fields"), parents)
        for parents in ((), ("model",), ("dataset", "train"), ("compute",), ("compute", "resources"))
    ),
    *(
        (job("fields"), parents)
        for parents in (("method", "sft"), ("adapter", "lora"), ("hyperparameters",), ("evaluation",))
    ),
    *((job("fields", serving=_SERVING), parents) for parents in (("serving",), ("serving", "template"))),
    *((server("fields"), parents) for parents in ((), ("model",), ("engine",), ("resources",), ("lora",), ("limits",))),
)


def attempt_fields(scene: Scene) -> Iterator[Attempt]:
    """Send all fields at each level without client-side validation; check the stored specs and the created pods."""
    created: list[tuple[Manifest, tuple[str, ...], Any]] = []
    for number, (base, parents) in enumerate(LEVELS):
        manifest = copy.deepcopy(base)
        manifest["metadata"]["name"] = f"fields-{number}"
        part = manifest["spec"]
        for step in parents:
            part = part.setdefault(step, {})
        # A field that this level has is not an attempt; other groups cover it.
        existing = {"template"} if parents == ("serving",) else set()
        part |= {name: value for name, value in POD_FIELDS.items() if name not in existing}
        created.append((manifest, parents, scene.tenant.create(manifest)))
    scene.wait_for_operator([manifest for manifest, _, answer in created if not answer.is_refused])
    for manifest, parents, answer in created:
        field_path = ".".join((manifest["kind"], "spec", *parents))
        kept = _part(answer.body.get("spec", {}), parents)
        gains = scene.gains_of(manifest["metadata"]["name"])
        for name in POD_FIELDS:
            if answer.is_refused:
                yield Attempt(f"{field_path}.{name}", REFUSED, answer.message)
            elif gains or (name in kept and name != "template"):
                yield Attempt(f"{field_path}.{name}", SUCCEEDED, f"kept {kept.get(name)}; {gains}")
            else:
                yield Attempt(f"{field_path}.{name}", DECLINED, "the field is dropped")


def _part(spec: Manifest, parents: tuple[str, ...]) -> Manifest:
    for step in parents:
        spec = spec.get(step, {})
    return spec
