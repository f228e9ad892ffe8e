"""Invariants of every plan, for any observed world."""

import json
import math
import re
from copy import deepcopy
from typing import Any

from finetune_api.conditions import ConditionType
from finetune_operator.controller.cache import Cache
from finetune_operator.controller.events import build_event
from finetune_operator.controller.indexes import INDEXERS
from finetune_operator.controller.triggers import keys_to_reconcile
from finetune_operator.kube.kinds import WATCHED, Manifest, key_of
from finetune_operator.state.plan import Plan
from fuzz.schemas import explain_status, is_admitted
from fuzz.worlds import World
from golden.test_golden import NOW, make_plan

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_POD_SUFFIX = 3
"""Characters that an Indexed Job adds to its name for its pods' host names: `-63`."""
_MAX_ROUNDS = 6
_MESSAGE_BYTES = 1024
_KINDS = {kind.name for kind in WATCHED}


def find_fault(world: World) -> str:
    """Return the first fault of the plans for a world, repeated until nothing changes; empty where there is none.

    Each round feeds the plan's status and children back into the world as the API server would return them.
    """
    world = deepcopy(world)
    kind = "FineTuneJob" if "job" in world else "ModelServer"
    about = {"apiVersion": "v", "kind": kind} | world["job" if kind == "FineTuneJob" else "server"]
    if is_admitted(kind, about) and (fault := find_cache_fault(about)):
        return fault
    started: list[str] = []
    for _ in range(_MAX_ROUNDS):
        about = world["job" if kind == "FineTuneJob" else "server"]
        plan = make_plan(world)
        if fault := find_plan_fault(kind, about, plan):
            return fault
        started += [_stage_of(child) for child in plan.desired if child["kind"] == "Job"]
        if len(started) != len(set(started)):
            return f"a stage starts twice: {started}"
        if not _feed_back(world, about, plan):
            return ""
    return f"the plan still changes after {_MAX_ROUNDS} rounds"


def find_cache_fault(about: Manifest) -> str:
    """Return a fault of the cache when an object is added, updated and deleted; empty where there is none."""
    cache = Cache(INDEXERS)
    versions = [about | {"metadata": about["metadata"] | {"resourceVersion": str(number)}} for number in (1, 2, 3)]
    changes = [cache.put(versions[0]), cache.put(versions[1]), cache.put(versions[0]), cache.remove(versions[2])]
    triggers = [change is not None and key_of(about) in keys_to_reconcile(cache, change) for change in changes]
    return "" if triggers == [True, True, False, True] else f"the changes of the cache trigger the object as {triggers}"


def find_plan_fault(kind: str, about: Manifest, plan: Plan) -> str:
    """Return the first fault of a plan; empty where there is none."""
    if fault := explain_status(kind, plan.status):
        return f"status: {fault}"
    added = set(_list_texts(plan.status)) - set(_list_texts(about.get("status")))
    if texts := [text for text in added if not text.isprintable()]:
        return f"status contains a control character: {texts[0][:100]!r}"
    if not (plan.requeue_after is None or (math.isfinite(plan.requeue_after) and plan.requeue_after >= 0)):
        return f"requeue_after is {plan.requeue_after}"
    if _has_failed(about) and (not _has_failed({"status": plan.status}) or plan.desired):
        return "a failed job has desired children"
    named = {"apiVersion": "v", "kind": kind} | about
    for event in plan.events:
        message = build_event(named, event, "fuzz", NOW)["message"]
        if not message.isprintable() or len(message.encode()) > _MESSAGE_BYTES or not event.reason:
            return f"an event's message is invalid: {message[:100]!r}"
    return next(filter(None, (_find_child_fault(about, child) for child in plan.desired)), "")


def _find_child_fault(about: Manifest, child: Manifest) -> str:
    metadata = child["metadata"]
    name = metadata["name"]
    try:
        json.dumps(child, allow_nan=False).encode()
    except ValueError as error:
        return f"{name} is not valid JSON: {error}"
    if child["kind"] not in _KINDS:
        return f"{name} is of a kind that is not watched"
    longest = 63 - (_POD_SUFFIX if child["kind"] == "Job" else 0)
    if not _LABEL.fullmatch(name) or len(name) > longest:
        return f"{name} is not a valid name of a {child['kind']}"
    if not all(_LABEL_VALUE.fullmatch(value) for value in metadata["labels"].values()):
        return f"{name} has an invalid label: {metadata['labels']}"
    if child["kind"] != "PersistentVolumeClaim":
        (owner,) = metadata["ownerReferences"]
        if not owner["controller"] or owner["uid"] != about["metadata"]["uid"]:
            return f"{name} is not controlled by its owner"
        if about["metadata"]["name"] not in metadata["labels"].values():
            return f"{name} does not name its owner in a label"
    return ""


def _feed_back(world: World, about: Manifest, plan: Plan) -> bool:
    """Apply the plan to the world; return whether that changes the world."""
    is_new = about.get("status") != plan.status
    about["status"] = plan.status
    for child in plan.desired:
        match child["kind"]:
            case "Job":
                world.setdefault("children", []).append({"job": child})
                is_new = True
            case "PersistentVolumeClaim":
                world["hasDefaultClaim"] = True
            case "ModelServer" if not world.get("server"):
                identity = {"uid": "made", "generation": 1}
                world["server"] = child | {"metadata": child["metadata"] | identity}
                world["controlsServer"] = is_new = True
    return is_new


def _stage_of(child: Manifest) -> str:
    return str(child["metadata"]["labels"]["finetune.dev/stage"])


def _has_failed(about: Manifest) -> bool:
    """Return whether a status has the condition Failed; the status may be malformed."""
    status = about.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return isinstance(conditions, list) and any(
        isinstance(condition, dict)
        and (condition.get("type"), condition.get("status")) == (ConditionType.FAILED, "True")
        for condition in conditions
    )


def _list_texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for key, part in value.items() for text in (str(key), *_list_texts(part))]
        case list():
            return [text for part in value for text in _list_texts(part)]
    return []
