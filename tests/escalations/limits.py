"""Places that are the cluster's own, names that mean something else, and objects that are too large."""

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
    ("a field that there is not", {"unknown": "x" * 1_000_000}),
    ("depth", {"unknown": _DEEP}),
    ("more than a request may hold", {"unknown": "x" * 4_000_000}),
)


def attempt_places(scene: Scene) -> Iterator[Attempt]:
    """Ask for places and priorities that are the cluster's own."""
    for part in _PLACES:
        for base in (
            job("place", compute=part),
            job("place", serving={"modelName": "bot", "template": part}),
            server("place", **part),
        ):
            where = "spec" if base["kind"] == "ModelServer" else "compute" if "compute" in base["spec"] else "template"
            what = f"{base['kind']} {where}: {part}"
            yield from _try_all(scene, [(what, base)])


def attempt_names(scene: Scene) -> Iterator[Attempt]:
    """Give names that are routes, paths or somebody else's."""
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
    """Make objects as large as they are let be; the operator goes on, and nothing of theirs reaches a pod."""
    tried = [(f"huge: {what}", job(f"huge-{number}", **spec)) for number, (what, spec) in enumerate(_HUGE)]
    for number, (what, mark) in enumerate((("annotations", "x" * 200_000), ("labels", ""))):
        manifest = job(f"marked-{number}")
        pairs = {"x": mark} if mark else {f"label-{one}": "x" for one in range(3_000)}
        manifest["metadata"][what] = pairs
        tried.append((f"huge: {what}", manifest))
    yield from _try_all(scene, tried)


def _try_all(scene: Scene, tried: list[tuple[str, Manifest]]) -> Iterator[Attempt]:
    """Create each under its name; what is admitted is judged once the operator has looked at it."""
    answers = [(what, copy.deepcopy(one), scene.tenant.create(one)) for what, one in tried]
    scene.wait_for_operator([manifest for _, manifest, answer in answers if not answer.is_refused])
    for what, manifest, answer in answers:
        yield scene.judge(what, answer, manifest["metadata"]["name"])
        if not answer.is_refused:
            scene.tenant.call("DELETE", f"{path_of(manifest)}/{manifest['metadata']['name']}")
