"""Names that are taken: the operator never changes the objects of others, whatever metadata they have."""

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
"""Kinds with children whose name the author can choose."""


def attempt_takeovers(scene: Scene) -> Iterator[Attempt]:
    """Create foreign objects of each kind in several disguises; then let the tenant create an owner with that name."""
    decoy = _make_decoy(scene)
    tried: list[tuple[str, Manifest, str, Manifest]] = []
    for kind in THEIRS:
        for disguise in _disguises("", decoy):
            name = f"{kind[:12].lower()}-{disguise}"
            theirs = _build_theirs(kind, name, _disguises(name, decoy)[disguise])
            answer = scene.admin.create(theirs)
            assert answer.code == 201, answer.message
            before = _read_essence(scene, theirs)
            claimed = _build_claim(kind, name)
            assert not scene.tenant.create(claimed).is_refused
            tried.append((f"{kind} {theirs['metadata']['name']}, {disguise}", theirs, before, claimed))
    scene.wait_for_operator([claimed for *_, claimed in tried])
    for description, theirs, before, claimed in tried:
        now = scene.admin.get(theirs)
        ready = scene.reason_of(claimed, "Ready")
        if _essence(now) != before:
            yield Attempt(description, SUCCEEDED, f"was {before}, is {_essence(now)}"[:600])
        elif ready[1] not in ("Conflict", "CreateRefused"):
            yield Attempt(description, SUCCEEDED, f"not changed, but Ready is {ready} and shows no conflict")
        else:
            yield Attempt(description, DECLINED, ready[1])
    yield _attempt_claim(scene)
    yield from _attempt_shared_policies(scene)
    yield from _attempt_forged_parts(scene, decoy)


def _make_decoy(scene: Scene) -> Manifest:
    """Create a foreign ModelServer; return an owner reference to it."""
    answer = scene.admin.create(server("prod"))
    assert answer.code == 201, answer.message
    reference = {"apiVersion": "finetune.dev/v1alpha1", "kind": "ModelServer", "name": "prod", "controller": True}
    return reference | {"uid": answer.body["metadata"]["uid"]}


def _disguises(name: str, decoy: Manifest) -> dict[str, Manifest]:
    """Return metadata by which the operator might mistake an object for its own."""
    labels = {
        "app.kubernetes.io/managed-by": "finetune-operator",
        "finetune.dev/owned": "true",
        "finetune.dev/server": name,
        "finetune.dev/job": name,
    }
    return {
        "bare": {},
        "labeled": {"labels": labels},
        "applied": {"labels": labels, "annotations": {"finetune.dev/applied": "0" * 64}},
        "owned": {"labels": labels, "ownerReferences": [decoy]},
    }


def _build_theirs(kind: str, name: str, disguise: Manifest) -> Manifest:
    version, rest = copy.deepcopy(THEIRS[kind])
    own = f"{name}-routes" if kind == "ConfigMap" else name
    metadata = {"name": own, "namespace": TENANT} | copy.deepcopy(disguise)
    return {"apiVersion": version, "kind": kind, "metadata": metadata} | rest


def _build_claim(kind: str, name: str) -> Manifest:
    """Return the object of the tenant that needs the name."""
    if kind == "ModelServer":
        return job(name, serving={"modelName": name, "template": {}})
    return server(name, autoscaling={"maxReplicas": 2})


def _read_essence(scene: Scene, theirs: Manifest) -> str:
    return _essence(scene.admin.get(theirs))


def _essence(manifest: Manifest) -> str:
    """Return the fields that the owner wrote, as JSON, without those that controllers write."""
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}).items()
    kept: Manifest = {name: metadata.get(name) for name in ("uid", "labels", "ownerReferences")}
    kept["annotations"] = {key: value for key, value in annotations if not key.startswith("deployment.kubernetes.io/")}
    return json.dumps(kept | {name: manifest.get(name) for name in ("spec", "data")}, sort_keys=True)


def _attempt_claim(scene: Scene) -> Attempt:
    """Create the artifacts claim before the operator does: it is used, and keeps its size, labels and owners."""
    metadata = {"name": "finetune-artifacts", "namespace": CLAIMED, "labels": {"theirs": "1"}}
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "7Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
    assert scene.admin.create(claim).code == 201
    before = scene.admin.get(claim)
    user_job = job("job", CLAIMED)
    assert not scene.tenant.create(user_job).is_refused
    scene.wait_for_operator([user_job])
    now = scene.admin.get(claim)
    is_unchanged = (
        now["spec"] == before["spec"]
        and now["metadata"]["labels"].get("theirs") == "1"
        and "ownerReferences" not in now["metadata"]
    )
    return Attempt(
        f"PersistentVolumeClaim {metadata['name']}", HARMLESS if is_unchanged else SUCCEEDED, str(now["metadata"])
    )


def _attempt_shared_policies(scene: Scene) -> Iterator[Attempt]:
    """Create foreign policies with the names that the jobs of a namespace share; no job may start without its own."""
    for number, name in enumerate(("finetune-stages", "finetune-stages-outside")):
        namespace = f"{CLAIMED}-{number}"
        allow_tenant(scene.admin, namespace)
        theirs = _build_theirs("NetworkPolicy", name, {"labels": {"theirs": "1"}})
        theirs["metadata"]["namespace"] = namespace
        assert scene.admin.create(theirs).code == 201
        before = _read_essence(scene, theirs)
        user_job = job("job", namespace)
        assert not scene.tenant.create(user_job).is_refused
        scene.wait_for_operator([user_job])
        ready = scene.reason_of(user_job, "Ready")
        is_unchanged = _read_essence(scene, theirs) == before and ready[1] == "Conflict"
        yield Attempt(f"NetworkPolicy {name}", DECLINED if is_unchanged else SUCCEEDED, str(ready))


def _attempt_forged_parts(scene: Scene, decoy: Manifest) -> Iterator[Attempt]:
    """Forge the labels, annotations and owners by which the operator finds its objects."""
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
        tried.append((f"a {base['kind']} with prod as its owner", owned, scene.tenant.create(owned)))
        blocking = copy.deepcopy(owned)
        blocking["metadata"]["ownerReferences"] = [decoy | {"blockOwnerDeletion": True}]
        blocking["metadata"]["name"] = f"forged-{number}-blocking"
        tried.append((f"a {base['kind']} that keeps prod from being deleted", blocking, scene.tenant.create(blocking)))
    scene.wait_for_operator([manifest for _, manifest, answer in tried if not answer.is_refused])
    for description, manifest, answer in tried:
        attempt = scene.assess(description, answer, manifest["metadata"]["name"])
        if _essence(scene.admin.get(server("prod"))) != before:
            attempt = Attempt(description, SUCCEEDED, "prod was changed")
        yield attempt
    yield _attempt_foreign_job(scene, labels)
    theirs = job("job", "victim")
    answer = scene.tenant.call("PATCH", path("finetunejobs", "job", "victim"), {"spec": {"approved": True}}, _MERGE)
    changed = scene.admin.get(theirs)["spec"]["approved"]
    yield Attempt("another namespace's job approved", SUCCEEDED if changed else REFUSED, answer.message)


def _attempt_foreign_job(scene: Scene, labels: dict[str, str]) -> Attempt:
    """Create a foreign Job that looks like a stage of the tenant's job, and trigger a reconciliation."""
    marks = labels | {"finetune.dev/job": "forged-0", "finetune.dev/stage": "Train", "finetune.dev/attempt": "1"}
    pod = {"metadata": {"labels": marks}, "spec": _POD["spec"] | {"restartPolicy": "Never"}}
    metadata = {"name": "nightly", "namespace": TENANT, "labels": marks}
    foreign: Manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
    answer = scene.admin.create(foreign | {"spec": {"template": pod, "suspend": True}})
    assert answer.code == 201, answer.message
    before = _read_essence(scene, foreign)
    later_job = job("looked-at-later")
    scene.tenant.call("PATCH", path("finetunejobs", "forged-0"), {"metadata": {"labels": {"a": "b"}}}, _MERGE)
    assert not scene.tenant.create(later_job).is_refused
    scene.wait_for_operator([later_job])
    trainings = scene.admin.get(job("forged-0")).get("status", {}).get("attempts", {}).get("train", 0)
    is_unchanged = _read_essence(scene, foreign) == before and trainings == 0
    evidence = f"attempts to train: {trainings}"
    return Attempt("a foreign Job with the labels of a stage", DECLINED if is_unchanged else SUCCEEDED, evidence)


_MERGE = "application/merge-patch+json"
