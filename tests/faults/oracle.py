"""Checks after every run: the fault-free end, one training for each attempt, no orphan, no leaked write. No I/O."""

import difflib
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from faults.proxy import Write
from faults.world import Manifest, Scene, controller_of
from finetune_api.meta import GROUP, ROUTES_ANNOTATION, SERVER_LABEL
from finetune_operator.kube.kinds import OWNED_LABEL, WATCHED

_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"')
_STAGE_HASH = re.compile(r"-(prepare|train|evaluate|export)-(\d+)-[0-9a-f]{6}\b")
_CHILD_HASH = re.compile(r"-(job|train)-[0-9a-f]{6}\b")
_OWNERS = ("FineTuneJob", "ModelServer")
_ANNOTATING = {"annotations", "uid", "resourceVersion"}
"""Fields that a write to a pod's metadata may contain."""
_RANDOM_FIELDS = {"clusterIP", "clusterIPs", "pod-template-hash"}
"""Fields that differ in every run."""


@dataclass(frozen=True)
class End:
    """The end of a run, without what differs in every run."""

    objects: tuple[tuple[str, str], ...]
    """Kind and name of each object, and the object as JSON: statuses and children."""
    events: frozenset[str]
    """Events: object, type and reason."""


def describe_end(scene: Scene, namespace: str) -> End:
    """Return the current state of a namespace."""
    names = {
        manifest["metadata"]["uid"]: f"{kind}/{name}"
        for (kind, name), manifest in scene.objects.items()
        if kind in _OWNERS
    }
    objects = []
    for (kind, _), manifest in scene.objects.items():
        if kind != "Event":
            described = _describe(kind, manifest)
            title = f"{kind} {described['name']}"
            text = json.dumps(described, sort_keys=True, indent=1)
            objects.append((_normalize(title, names, namespace), _normalize(text, names, namespace)))
    events = frozenset(
        f"{event['regarding']['kind']}/{event['regarding']['name']} {event['type']} {event['reason']}"
        for event in scene.find("Event")
    )
    return End(tuple(sorted(objects)), events)


def find_difference(expected: End, actual: End) -> list[str]:
    """Return the differences between two ends, apart from events."""
    missing, unexpected = Counter(expected.objects), Counter(actual.objects)
    missing, unexpected = missing - unexpected, unexpected - missing
    differences = []
    for title, text in sorted(missing):
        others = [other for other in unexpected if other[0] == title]
        if not others:
            differences.append(f"missing: {title}")
            continue
        del unexpected[others[0]]
        lines = difflib.unified_diff(
            text.splitlines(), others[0][1].splitlines(), "expected", "actual", n=2, lineterm=""
        )
        differences.append("\n".join([title, *lines]))
    return differences + [f"unexpected: {title}" for title, _ in sorted(unexpected)]


def _describe(kind: str, manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    if kind == "Pod":
        labels = {name: value for name, value in metadata["labels"].items() if name.startswith(GROUP)}
        routes = metadata.get("annotations", {}).get(ROUTES_ANNOTATION)
        name, phase = " ".join(labels.values()), manifest["status"].get("phase")
        return {"kind": kind, "name": name, "labels": labels, "routes": routes, "phase": phase}
    described = {"kind": kind, "name": metadata["name"], "labels": metadata.get("labels")}
    described["owners"] = [f"{owner['kind']}/{owner['uid']}" for owner in metadata.get("ownerReferences", [])]
    for part in ("spec", "data", "status") if kind in _OWNERS else ("spec", "data"):
        described[part] = _without_random_fields(manifest.get(part))
    return described


def _without_random_fields(value: Any) -> Any:
    if isinstance(value, dict):
        # The observedGeneration of an unchanged condition depends on the time of the last reconciliation.
        ignored = _RANDOM_FIELDS | ({"observedGeneration"} if "lastTransitionTime" in value else set())
        return {name: _without_random_fields(part) for name, part in value.items() if name not in ignored}
    return [_without_random_fields(part) for part in value] if isinstance(value, list) else value


def _normalize(text: str, names: dict[str, str], namespace: str) -> str:
    text = _UID.sub(lambda uid: f"<{names.get(uid.group(), 'uid')}>", text).replace(namespace, "NAMESPACE")
    text = _TIME.sub('"TIME"', text)
    return _CHILD_HASH.sub(r"-\1-HASH", _STAGE_HASH.sub(r"-\1-\2-HASH", text))


def find_repeated(scene: Scene) -> list[str]:
    """Return each duplicate Job: a second one of an attempt, or a training that started while another was running."""
    repeated = []
    jobs = sorted(scene.jobs.values(), key=lambda job: job.started)
    for number, job in enumerate(jobs):
        earlier_jobs = [other for other in jobs[:number] if (other.owner, other.stage) == (job.owner, job.stage)]
        if any(other.attempt == job.attempt for other in earlier_jobs):
            repeated.append(f"another Job of {job.stage} {job.attempt}")
        elif job.stage == "Train" and any(other.ended is None or other.ended > job.started for other in earlier_jobs):
            repeated.append(f"training {job.attempt} started while another was running")
    return repeated


def find_orphans(scene: Scene) -> list[str]:
    """Return the objects whose owner no longer exists."""
    existing = {manifest["metadata"]["uid"] for manifest in scene.objects.values()}
    kinds = {kind.name for kind in WATCHED}
    return [
        f"{kind} {name}: its {owner['kind']} {owner['name']} does not exist"
        for (kind, name), manifest in scene.objects.items()
        for owner in manifest["metadata"].get("ownerReferences", [])
        if owner["kind"] in kinds and owner["uid"] not in existing
    ]


def find_leaks(scene: Scene, namespace: str, writes: list[Write]) -> list[str]:
    """Return the successful writes to objects that the operator must not write."""
    return [
        f"{write.point} {write.path}: {why}"
        for write in writes
        if 200 <= write.status < 300 and (why := _explain_leak(scene, namespace, write))
    ]


def _explain_leak(scene: Scene, namespace: str, write: Write) -> str:
    """Return why the operator must not make a write; empty for an allowed write."""
    sent, answer = write.body, write.answer.get("metadata", {})
    is_wrong = False
    match write.point.resource:
        case _ if f"/namespaces/{namespace}/" not in write.path:
            return "another namespace"
        case "finetunejobs/status" | "modelservers/status":
            is_wrong = sent.get("metadata", {}).get("uid") != answer["uid"]
        case "finetunejobs":
            is_wrong = True
        case "events":
            is_wrong = sent["involvedObject"]["uid"] not in scene.controllers
        case "pods":
            is_wrong = SERVER_LABEL not in answer.get("labels", {}) or bool(set(sent["metadata"]) - _ANNOTATING)
        case "persistentvolumeclaims" | "networkpolicies" if controller_of(write.answer) is None:
            # All jobs of a namespace share these.
            is_wrong = OWNED_LABEL not in answer.get("labels", {})
        case _:
            # The answer to a deletion is a Status with the uid of the deleted object.
            uid = answer.get("uid") or write.answer.get("details", {}).get("uid")
            owner = scene.controllers.get(uid)
            is_wrong = owner not in scene.controllers or controller_of(write.answer) not in (owner, None)
    return "the operator must not write this object" if is_wrong else ""
