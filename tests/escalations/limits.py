"""Scheduling reserved for the cluster, names with a second meaning, and objects that are too large."""

import copy
from collections.abc import Iterator
from typing import Any

from escalations.caller import path_of
from escalations.scene import Attempt, Manifest, Scene, job, server

_ROLES = ("control-plane", "master", "etcd")
_PLACES: tuple[dict[str, Any], ...] = (
    {"priorityClassName": "system-node-critical"},
    {"priorityClassName": "system-cluster-critical"},
    *({"tolerations": [{"key": f"node-role.kubernetes.io/{role}"}]} for role in _ROLES),
    *({"tolerations": [{"key": f"node.kubernetes.io/{taint}"}]} for taint in ("unschedulable", "not-ready")),
    {"tolerations": [{"operator": "Exists"}]},
    {"tolerations": [{"key": "", "operator": "Exists"}]},
    *({"nodeSelector": {f"node-role.kubernetes.io/{role}": ""}} for role in _ROLES),
)
_MODEL_NAMES = (
    "",
    "base",
    "v1/models",
    "../base",
    "%2e%2e",
    "bot?x=1",
    "bot#x",
    "bot--0123456789ab",
    "BOT",
    "bot\n",
    "x" * 49,
    ".bot",
)
_OBJECT_NAMES = ("x" * 41, "1bot", "bot.svc", "bot/x", "-bot", "bot-", "Bot", "../bot", "")
_MANY = [{"key": f"k{number}"} for number in range(5_000)]
_DEEP: dict[str, Any] = {}
for _ in range(300):
    _DEEP = {"x": _DEEP}
_HUGE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tolerations", {"compute": {"tolerations": _MANY}}),
    ("node selectors", {"compute": {"nodeSelector": {f"k{number}": "v" for number in range(5_000)}}}),
    ("GPUs", {"compute": {"resources": {"gpus": 10**9}}}),
    ("nodes", {"compute": {"nodes": 10**6}}),
    ("memory", {"compute": {"resources": {"memory": "9" * 40}}}),
    ("retries", {"retries": 10**9}),
    ("a schema", {"evaluation": {"jsonSchema": "x" * 20_000}}),
    ("a URI", {"model": {"uri": "hf://org/" + "x" * 600}}),
    ("an unknown field", {"unknown": "x" * 1_000_000}),
    ("depth", {"unknown": _DEEP}),
    ("more than the request limit", {"unknown": "x" * 4_000_000}),
)


def attempt_places(scene: Scene) -> Iterator[Attempt]:
    """Request nodes and priorities that are reserved for the cluster."""
    for part in _PLACES:
        for base in (
            job("place", compute=part),
            job("place", serving={"modelName": "bot", "template": part}),
            server("place", **part),
        ):
            section = (
                "spec" if base["kind"] == "ModelServer" else "compute" if "compute" in base["spec"] else "template"
            )
            yield from _try_all(scene, [(f"{base['kind']} {section}: {part}", base)])


def attempt_names(scene: Scene) -> Iterator[Attempt]:
    """Use names that look like routes, paths or objects of others."""
    tried: list[tuple[str, Manifest]] = [
        (f"modelName {name[:50]!r}", job("name", serving={"modelName": name, "template": {}})) for name in _MODEL_NAMES
    ]
    for name in _OBJECT_NAMES:
        tried += [(f"{base['kind']} named {name!r}", base) for base in (job(name), server(name))]
    tried += [
        (f"{field} {value!r}", job("name", **spec))
        for value in ("../x", "victim/x", "x.victim.svc", "x y", "$(x)")
        for field, spec in (
            ("serving.server", {"serving": {"modelName": "bot", "server": value}}),
            ("compute.queueName", {"compute": {"queueName": value}}),
            ("modelCache", {"serving": {"modelName": "bot", "template": {"modelCache": value}}}),
        )
    ]
    tried += [
        (f"pins {name!r}", server("name", pins={name: job_name}))
        for name, job_name in (("bot", "../x"), ("bot", "victim/x"))
    ]
    yield from _try_all(scene, tried)


def attempt_sizes(scene: Scene) -> Iterator[Attempt]:
    """Create objects as large as the API server admits: the operator keeps working and no pod gets their content."""
    tried = [
        (f"huge: {description}", job(f"huge-{number}", **spec)) for number, (description, spec) in enumerate(_HUGE)
    ]
    for number, (field, value) in enumerate((("annotations", "x" * 200_000), ("labels", ""))):
        manifest = job(f"marked-{number}")
        pairs = {"x": value} if value else {f"label-{index}": "x" for index in range(3_000)}
        manifest["metadata"][field] = pairs
        tried.append((f"huge: {field}", manifest))
    yield from _try_all(scene, tried)


def _try_all(scene: Scene, tried: list[tuple[str, Manifest]]) -> Iterator[Attempt]:
    """Create each object as the tenant; assess the admitted ones once the operator has reconciled them."""
    answers = [(description, copy.deepcopy(manifest), scene.tenant.create(manifest)) for description, manifest in tried]
    scene.wait_for_operator([manifest for _, manifest, answer in answers if not answer.is_refused])
    for description, manifest, answer in answers:
        yield scene.assess(description, answer, manifest["metadata"]["name"])
        if not answer.is_refused:
            scene.tenant.call("DELETE", f"{path_of(manifest)}/{manifest['metadata']['name']}")
