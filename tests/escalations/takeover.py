"""Names that are taken: what somebody else made is never changed, however it is disguised."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from escalations.scene import (
    CLAIMED,
    DECLINED,
    HARMLESS,
    REFUSED,
    SUCCEEDED,
    TENANT,
    Attempt,
    Manifest,
    Scene,
    allow_tenant,
    job,
    path,
    server,
)

_POD: Manifest = {"metadata": {"labels": {"app": "theirs"}}, "spec": {"containers": [{"name": "x", "image": "theirs"}]}}
_SELECTOR = {"matchLabels": {"app": "theirs"}}
_REF = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "theirs"}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "ConfigMap": ("v1", {"data": {"theirs": "1"}}),
    "Service": ("v1", {"spec": {"selector": {"app": "theirs"}, "ports": [{"port": 5432, "name": "database"}]}}),
    "Deployment": ("apps/v1", {"spec": {"replicas": 0, "selector": _SELECTOR, "template": _POD}}),
    "PodDisruptionBudget": ("policy/v1", {"spec": {"minAvailable": 3, "selector": _SELECTOR}}),
    "NetworkPolicy": ("networking.k8s.io/v1", {"spec": {"podSelector": _SELECTOR, "policyTypes": ["Ingress"]}}),
    "HorizontalPodAutoscaler": ("autoscaling/v2", {"spec": {"scaleTargetRef": _REF, "maxReplicas": 3}}),
    "ModelServer": ("finetune.dev/v1alpha1", {"spec": {"model": {"uri": "pvc://models/theirs"}}}),
}
"""Kinds of which a child has a name that its author can choose."""


def attempt_takeovers(scene: Scene) -> Iterator[Attempt]:
    """Let somebody make each thing first, in several disguises; then the tenant makes what needs the name."""
    decoy = _make_decoy(scene)
    tried: list[tuple[str, Manifest, str, Manifest]] = []
    for kind in THEIRS:
        for disguise in _disguises("", decoy):
            name = f"{kind[:12].lower()}-{disguise}"
            theirs = _build_theirs(kind, name, _disguises(name, decoy)[disguise])
            answer = scene.admin.create(theirs)
            assert answer.code == 201, answer.message
            before = _settled(scene, theirs)
            claimed = _build_claim(kind, name)
            assert not scene.tenant.create(claimed).is_refused
            tried.append((f"{kind} {theirs['metadata']['name']}, {disguise}", theirs, before, claimed))
    scene.wait_for_operator([claimed for *_, claimed in tried])
    for what, theirs, before, claimed in tried:
        now = scene.admin.get(theirs)
        told = scene.reason_of(claimed, "Ready")
        if _essence(now) != before:
            yield Attempt(what, SUCCEEDED, f"was {before}, is {_essence(now)}"[:600])
        elif told[1] not in ("Conflict", "CreateRefused"):
            yield Attempt(what, SUCCEEDED, f"left alone, but the author is told {told} and not of a conflict")
        else:
            yield Attempt(what, DECLINED, told[1])
    yield _attempt_claim(scene)
    yield from _attempt_shared_policies(scene)
    yield from _attempt_forged_parts(scene, decoy)


def _make_decoy(scene: Scene) -> Manifest:
    """Make a server of somebody's, who owns things."""
    answer = scene.admin.create(server("prod"))
    assert answer.code == 201, answer.message
    reference = {"apiVersion": "finetune.dev/v1alpha1", "kind": "ModelServer", "name": "prod", "controller": True}
    return reference | {"uid": answer.body["metadata"]["uid"]}


def _disguises(name: str, decoy: Manifest) -> dict[str, Manifest]:
    """Return metadata by which the operator might take a thing for its own."""
    labels = {
        "app.kubernetes.io/managed-by": "finetune-operator",
        "finetune.dev/owned": "true",
        "finetune.dev/server": name,
        "finetune.dev/job": name,
    }
    return {
        "bare": {},
        "labelled": {"labels": labels},
        "applied": {"labels": labels, "annotations": {"finetune.dev/applied": "0" * 64}},
        "owned": {"labels": labels, "ownerReferences": [decoy]},
    }


def _build_theirs(kind: str, name: str, disguise: Manifest) -> Manifest:
    version, rest = copy.deepcopy(THEIRS[kind])
    own = f"{name}-routes" if kind == "ConfigMap" else name
    metadata = {"name": own, "namespace": TENANT} | copy.deepcopy(disguise)
    return {"apiVersion": version, "kind": kind, "metadata": metadata} | rest


def _build_claim(kind: str, name: str) -> Manifest:
    """Return what the tenant makes to get hold of the name."""
    if kind == "ModelServer":
        return job(name, serving={"modelName": name, "template": {}})
    return server(name, autoscaling={"maxReplicas": 2})


def _settled(scene: Scene, theirs: Manifest) -> str:
    return _essence(scene.admin.get(theirs))


def _essence(manifest: Manifest) -> str:
    """Return what its owner wrote; controllers write the rest."""
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}).items()
    kept: Manifest = {name: metadata.get(name) for name in ("uid", "labels", "ownerReferences")}
    kept["annotations"] = {key: value for key, value in annotations if not key.startswith("deployment.kubernetes.io/")}
    return json.dumps(kept | {name: manifest.get(name) for name in ("spec", "data")}, sort_keys=True)


def _attempt_claim(scene: Scene) -> Attempt:
    """Let somebody make the claim that the operator would make: it is used, and keeps its size, labels and owners."""
    metadata = {"name": "finetune-artifacts", "namespace": CLAIMED, "labels": {"theirs": "1"}}
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "7Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
    assert scene.admin.create(claim).code == 201
    before = scene.admin.get(claim)
    using = job("job", CLAIMED)
    assert not scene.tenant.create(using).is_refused
    scene.wait_for_operator([using])
    now = scene.admin.get(claim)
    spared = (
        now["spec"] == before["spec"]
        and now["metadata"]["labels"].get("theirs") == "1"
        and "ownerReferences" not in now["metadata"]
    )
    return Attempt(f"PersistentVolumeClaim {metadata['name']}", HARMLESS if spared else SUCCEEDED, str(now["metadata"]))


def _attempt_shared_policies(scene: Scene) -> Iterator[Attempt]:
    """Let somebody make the policies that all jobs of a namespace share; a job does not begin without them."""
    for number, name in enumerate(("finetune-stages", "finetune-stages-outside")):
        namespace = f"{CLAIMED}-{number}"
        allow_tenant(scene.admin, namespace)
        theirs = _build_theirs("NetworkPolicy", name, {"labels": {"theirs": "1"}})
        theirs["metadata"]["namespace"] = namespace
        assert scene.admin.create(theirs).code == 201
        before = _settled(scene, theirs)
        using = job("job", namespace)
        assert not scene.tenant.create(using).is_refused
        scene.wait_for_operator([using])
        told = scene.reason_of(using, "Ready")
        spared = _settled(scene, theirs) == before and told[1] == "Conflict"
        yield Attempt(f"NetworkPolicy {name}", DECLINED if spared else SUCCEEDED, str(told))


def _attempt_forged_parts(scene: Scene, decoy: Manifest) -> Iterator[Attempt]:
    """Forge on the tenant's own objects what the operator finds its objects by."""
    labels = {"finetune.dev/server": "prod", "finetune.dev/job": "job", "finetune.dev/owned": "true"}
    others = {"kueue.x-k8s.io/queue-name": "vip", "pod-security.kubernetes.io/enforce": "privileged"}
    annotations = {
        "finetune.dev/applied": "0" * 64,
        "finetune.dev/routes": "x",
        "sidecar.istio.io/inject": "true",
        "container.apparmor.security.beta.kubernetes.io/train": "unconfined",
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
    }
    forged = {"labels": labels | others, "annotations": annotations}
    before = _essence(scene.admin.get(server("prod")))
    tried = []
    for number, base in enumerate((job("x"), server("x"), job("x", serving={"modelName": "bot", "server": "prod"}))):
        manifest = copy.deepcopy(base)
        manifest["metadata"] |= copy.deepcopy(forged) | {"name": f"forged-{number}"}
        tried.append((f"forged labels and annotations on a {base['kind']}", manifest, scene.tenant.create(manifest)))
        owned = copy.deepcopy(base)
        owned["metadata"] |= {"name": f"forged-{number}-owned", "ownerReferences": [decoy]}
        tried.append((f"a {base['kind']} that says it is prod's", owned, scene.tenant.create(owned)))
        blocking = copy.deepcopy(owned)
        blocking["metadata"]["ownerReferences"] = [decoy | {"blockOwnerDeletion": True}]
        blocking["metadata"]["name"] = f"forged-{number}-blocking"
        tried.append((f"a {base['kind']} that keeps prod from being deleted", blocking, scene.tenant.create(blocking)))
    scene.wait_for_operator([manifest for _, manifest, answer in tried if not answer.is_refused])
    for what, manifest, answer in tried:
        attempt = scene.judge(what, answer, manifest["metadata"]["name"])
        if _essence(scene.admin.get(server("prod"))) != before:
            attempt = Attempt(what, SUCCEEDED, "prod was changed")
        yield attempt
    yield _attempt_foreign_job(scene, labels)
    theirs = job("job", "victim")
    answer = scene.tenant.call("PATCH", path("finetunejobs", "job", "victim"), {"spec": {"approved": True}}, _MERGE)
    changed = scene.admin.get(theirs)["spec"]["approved"]
    yield Attempt("another namespace's job approved", SUCCEEDED if changed else REFUSED, answer.message)


def _attempt_foreign_job(scene: Scene, labels: dict[str, str]) -> Attempt:
    """Let somebody's Job look like a stage of the tenant's, and have the operator look."""
    marks = labels | {"finetune.dev/job": "forged-0", "finetune.dev/stage": "Train", "finetune.dev/attempt": "1"}
    pod = {"metadata": {"labels": marks}, "spec": _POD["spec"] | {"restartPolicy": "Never"}}
    metadata = {"name": "nightly", "namespace": TENANT, "labels": marks}
    foreign: Manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
    answer = scene.admin.create(foreign | {"spec": {"template": pod, "suspend": True}})
    assert answer.code == 201, answer.message
    before = _settled(scene, foreign)
    again = job("looked-at-later")
    scene.tenant.call("PATCH", path("finetunejobs", "forged-0"), {"metadata": {"labels": {"a": "b"}}}, _MERGE)
    assert not scene.tenant.create(again).is_refused
    scene.wait_for_operator([again])
    begun = scene.admin.get(job("forged-0")).get("status", {}).get("attempts", {}).get("train", 0)
    spared = _settled(scene, foreign) == before and begun == 0
    seen = f"trainings begun: {begun}"
    return Attempt("somebody's Job that says it is a stage of the tenant's", DECLINED if spared else SUCCEEDED, seen)


_MERGE = "application/merge-patch+json"
