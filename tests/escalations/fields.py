"""Fields of pods that the API does not have, wherever one might look for them."""

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
    *((job("fields"), way) for way in ((), ("model",), ("dataset", "train"), ("compute",), ("compute", "resources"))),
    *((job("fields"), way) for way in (("method", "sft"), ("adapter", "lora"), ("hyperparameters",), ("evaluation",))),
    *((job("fields", serving=_SERVING), way) for way in (("serving",), ("serving", "template"))),
    *((server("fields"), way) for way in ((), ("model",), ("engine",), ("resources",), ("lora",), ("limits",))),
)


def attempt_fields(scene: Scene) -> Iterator[Attempt]:
    """Give all fields at each level to a client that does not check; then look what was kept and what was made."""
    made: list[tuple[Manifest, tuple[str, ...], Any]] = []
    for number, (base, way) in enumerate(LEVELS):
        manifest = copy.deepcopy(base)
        manifest["metadata"]["name"] = f"fields-{number}"
        part = manifest["spec"]
        for step in way:
            part = part.setdefault(step, {})
        # A field that this level really has is not an attempt: what it does is tried elsewhere.
        known = {"template"} if way == ("serving",) else set()
        part |= {name: value for name, value in POD_FIELDS.items() if name not in known}
        made.append((manifest, way, scene.tenant.create(manifest)))
    scene.wait_for_operator([manifest for manifest, _, answer in made if not answer.is_refused])
    for manifest, way, answer in made:
        where = ".".join((manifest["kind"], "spec", *way))
        kept = _part(answer.body.get("spec", {}), way)
        gains = scene.gains_of(manifest["metadata"]["name"])
        for name in POD_FIELDS:
            if answer.is_refused:
                yield Attempt(f"{where}.{name}", REFUSED, answer.message)
            elif gains or (name in kept and name != "template"):
                yield Attempt(f"{where}.{name}", SUCCEEDED, f"kept {kept.get(name)}; {gains}")
            else:
                yield Attempt(f"{where}.{name}", DECLINED, "the field is dropped")


def _part(spec: Manifest, way: tuple[str, ...]) -> Manifest:
    for step in way:
        spec = spec.get(step, {})
    return spec
