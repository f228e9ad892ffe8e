"""What must be so after every run: the fault-free end, one training an attempt, no orphan, no leaked write. Pure."""

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
"""What a write to a pod's metadata may hold."""
_CHANCE = {"clusterIP", "clusterIPs", "pod-template-hash"}
"""Fields that no two runs have alike."""


@dataclass(frozen=True)
class End:
    """How a run ended, without what no two runs have alike."""

    objects: tuple[tuple[str, str], ...]
    """Kind and name of each object, and the object as JSON: statuses and children."""
    events: frozenset[str]
    """What was told: about whom, type and reason."""


def describe_end(scene: Scene, namespace: str) -> End:
    """Return how things stand in a namespace."""
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
            objects.append((_normalise(title, names, namespace), _normalise(text, names, namespace)))
    events = frozenset(
        f"{one['regarding']['kind']}/{one['regarding']['name']} {one['type']} {one['reason']}"
        for one in scene.find("Event")
    )
    return End(tuple(sorted(objects)), events)


def find_difference(wanted: End, found: End) -> list[str]:
    """Return in what two ends differ, apart from events."""
    missing, strange = Counter(wanted.objects), Counter(found.objects)
    missing, strange = missing - strange, strange - missing
    differences = []
    for title, text in sorted(missing):
        others = [other for other in strange if other[0] == title]
        if not others:
            differences.append(f"missing: {title}")
            continue
        del strange[others[0]]
        lines = difflib.unified_diff(text.splitlines(), others[0][1].splitlines(), "wanted", "found", n=2, lineterm="")
        differences.append("\n".join([title, *lines]))
    return differences + [f"not wanted: {title}" for title, _ in sorted(strange)]


def _describe(kind: str, manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    if kind == "Pod":
        labels = {name: value for name, value in metadata["labels"].items() if name.startswith(GROUP)}
        routes = metadata.get("annotations", {}).get(ROUTES_ANNOTATION)
        name, phase = " ".join(labels.values()), manifest["status"].get("phase")
        return {"kind": kind, "name": name, "labels": labels, "routes": routes, "phase": phase}
    described = {"kind": kind, "name": metadata["name"], "labels": metadata.get("labels")}
    described["owners"] = [f"{one['kind']}/{one['uid']}" for one in metadata.get("ownerReferences", [])]
    for part in ("spec", "data", "status") if kind in _OWNERS else ("spec", "data"):
        described[part] = _without_chance(manifest.get(part))
    return described


def _without_chance(value: Any) -> Any:
    if isinstance(value, dict):
        # A condition that has nothing new to say tells since when, and that depends on when it was looked at.
        chance = _CHANCE | ({"observedGeneration"} if "lastTransitionTime" in value else set())
        return {name: _without_chance(part) for name, part in value.items() if name not in chance}
    return [_without_chance(part) for part in value] if isinstance(value, list) else value


def _normalise(text: str, names: dict[str, str], namespace: str) -> str:
    text = _UID.sub(lambda uid: f"<{names.get(uid.group(), 'uid')}>", text).replace(namespace, "NAMESPACE")
    text = _TIME.sub('"TIME"', text)
    return _CHILD_HASH.sub(r"-\1-HASH", _STAGE_HASH.sub(r"-\1-\2-HASH", text))


def find_repeated(scene: Scene) -> list[str]:
    """Return each Job that was one too many: of an attempt that had one, or of a training while another went on."""
    found = []
    jobs = sorted(scene.jobs.values(), key=lambda job: job.began)
    for number, job in enumerate(jobs):
        before = [one for one in jobs[:number] if (one.owner, one.stage) == (job.owner, job.stage)]
        if any(one.attempt == job.attempt for one in before):
            found.append(f"another Job of {job.stage} {job.attempt}")
        elif job.stage == "Train" and any(one.ended is None or one.ended > job.began for one in before):
            found.append(f"training {job.attempt} began while another one went on")
    return found


def find_orphans(scene: Scene) -> list[str]:
    """Return the objects whose owner is gone."""
    there = {manifest["metadata"]["uid"] for manifest in scene.objects.values()}
    kinds = {kind.name for kind in WATCHED}
    return [
        f"{kind} {name}: its {owner['kind']} {owner['name']} is gone"
        for (kind, name), manifest in scene.objects.items()
        for owner in manifest["metadata"].get("ownerReferences", [])
        if owner["kind"] in kinds and owner["uid"] not in there
    ]


def find_leaks(scene: Scene, namespace: str, writes: list[Write]) -> list[str]:
    """Return the writes that went to what is not the operator's own."""
    return [
        f"{write.point} {write.path}: {why}"
        for write in writes
        if 200 <= write.status < 300 and (why := _explain_leak(scene, namespace, write))
    ]


def _explain_leak(scene: Scene, namespace: str, write: Write) -> str:
    """Return why a write should not have been; empty where it was the operator's to make."""
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
            is_wrong = sent["regarding"]["uid"] not in scene.controllers
        case "pods":
            is_wrong = SERVER_LABEL not in answer.get("labels", {}) or bool(set(sent["metadata"]) - _ANNOTATING)
        case "persistentvolumeclaims" | "networkpolicies" if controller_of(write.answer) is None:
            # What all jobs of a namespace share.
            is_wrong = OWNED_LABEL not in answer.get("labels", {})
        case _:
            # A deletion is answered by a status that names what is gone.
            uid = answer.get("uid") or write.answer.get("details", {}).get("uid")
            owner = scene.controllers.get(uid)
            is_wrong = owner not in scene.controllers or controller_of(write.answer) not in (owner, None)
    return "not the operator's to write" if is_wrong else ""
