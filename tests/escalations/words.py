"""Hostile strings in every text field of both kinds: arguments, shell commands, JSON, paths and variables."""

import copy
import dataclasses
import json
import random
from collections.abc import Iterator
from typing import Any

import yaml
from cluster.layout import ROOT
from escalations.scene import MINE, Attempt, Manifest, Scene, job, server
from waiting import wait_for

WORDS = (
    "--trust-remote-code",
    "-c",
    "x --enable-lora --allowed-local-media-path=/",
    "$(HF_TOKEN)",
    "$(cat /etc/passwd)",
    "`id`",
    "x; id",
    "x && id",
    "x\nLD_PRELOAD=/scratch/x.so",
    "LD_PRELOAD",
    "PYTHONPATH=/claims/models",
    "x\x00y",
    "../../etc/passwd",
    "/etc/passwd",
    '"},"image":"evil","x":{"y":"',
    '{"apiVersion":"v1"}',
    "{{ 7 * 7 }}",
    "${PATH}",
    "others/secret",
    "x" * 5000,
)
_SEED, _COMPLETING_JOBS = 7, 3
Path = tuple[str | int, ...]
_SECRET = {"name": MINE}
_PLACE = {
    "resources": {"cpu": "1", "memory": "1Gi"},
    "nodeSelector": {"pool": "a"},
    "tolerations": [{"key": "gpu", "operator": "Equal", "value": "a"}],
    "priorityClassName": "batch",
}
_CHECK = {"stringCheck": {"reference": "a"}}
_FIELD_CHECK = {"stringCheck": {"referenceField": "a"}}
_LIKENESS = {"textSimilarity": {"metric": "Bleu", "referenceField": "a"}}
_GRADERS = [
    {"name": "one"} | _CHECK,
    {"name": "two"} | _FIELD_CHECK,
    {"name": "three"} | _LIKENESS,
    {"name": "four", "multi": [_CHECK, _FIELD_CHECK, _LIKENESS]},
]
_SERVER = _PLACE | {
    "modelCache": "cache",
    "auth": {"secretRef": _SECRET, "keys": [{"name": "a", "models": ["bot"]}]},
    "engine": {"toolCallParser": "hermes", "reasoningParser": "qwen3"},
}
_HUB = {"revision": "main", "secretRef": _SECRET}
_MODEL = _HUB | {"uri": "hf://org/base", "chatTemplate": f"configmap://{MINE}/chat.jinja"}
_DATA = _HUB | {"columns": {"prompt": "question"}}
_WRITTEN = (
    job(
        "supervised",
        model=_MODEL,
        dataset={
            "mix": [{"uri": "hf://org/data", "weight": 0.5} | _DATA],
            "validation": {"uri": "hf://org/held"} | _DATA,
        },
        adapter={"lora": {"targetModules": ["q_proj"]}},
        compute=_PLACE,
        evaluation={
            "graders": _GRADERS,
            "jsonSchema": "{}",
            "gates": [{"metric": "Grader", "grader": "one", "minGain": 0}],
        },
        output={
            "uri": "pvc://results",
            "bucket": {"uri": "s3://bucket/a", "secretRef": _SECRET},
            "hub": {"uri": "hf://org/tuned", "secretRef": _SECRET},
        },
        tracking={
            "wandb": {"project": "a", "entity": "b", "secretRef": _SECRET},
            "mlflow": {"trackingUri": "https://mlflow.example.com", "experiment": "a", "secretRef": _SECRET},
        },
        serving={"modelName": "bot", "template": _SERVER},
        budget={"gpuHourPrice": 1, "currency": "EUR"},
    ),
    job(
        "rewarded",
        dataset={"train": {"uri": "hf://org/data"} | _DATA},
        method={"grpo": {"graders": _GRADERS}},
        # Its training stays queued; no job with this base has to complete.
        compute={"queueName": "queue"},
        serving={"modelName": "bot", "server": "shared"},
    ),
    server("served", **_SERVER, model=_MODEL, pins={"bot": "a"}),
)
# Copied through JSON, so that no two fields share one dictionary.
BASES: tuple[Manifest, ...] = tuple(json.loads(json.dumps(_WRITTEN)))


_MAPS = ("nodeSelector", "pins", "columns")
"""The fields whose keys the user chooses."""


def attempt_words(scene: Scene) -> Iterator[Attempt]:
    """Try each word in each text field alone; then all admitted ones together in real objects."""
    assert not scene.tenant.create(server("shared")).is_refused
    pairs = [(base, leaf, word) for base in BASES for leaf in find_leaves(base["spec"]) for word in WORDS]
    chosen = pairs if scene.is_thorough else random.Random(_SEED).sample(pairs, len(pairs) // 5)  # noqa: S311
    admitted = []
    for base, leaf, word in chosen:
        answer = scene.tenant.create(put_word(base, leaf, word), dry_run=True)
        description = f"{base['kind']} {describe(leaf)} = {word[:60]!r}"
        if answer.is_refused:
            yield scene.assess(description, answer, "")
        else:
            admitted.append((description, base, leaf, word))
    yield from _attempt_together(scene, admitted)


def _attempt_together(scene: Scene, admitted: list[tuple[str, Manifest, Path, str]]) -> Iterator[Attempt]:
    """Create one object for each word, with the word in all fields that admit it; let some of the jobs complete."""
    manifests: dict[str, Manifest] = {}
    for _, base, leaf, word in admitted:
        name = _name(base, word)
        before = manifests.get(name) or copy.deepcopy(base)
        before["metadata"]["name"] = name
        changed = put_word(before, leaf, word)
        if not scene.tenant.create(changed, dry_run=True).is_refused:
            manifests[name] = changed
    answers = {name: scene.tenant.create(manifest) for name, manifest in manifests.items()}
    scene.wait_for_operator(list(manifests.values()))
    jobs = [manifest for manifest in manifests.values() if "template" in manifest["spec"].get("serving", {})]
    completing = jobs if scene.is_thorough else jobs[:_COMPLETING_JOBS]
    assert completing
    scene.played.update(manifest["metadata"]["name"] for manifest in completing)
    wait_for(
        lambda: all(_is_done(scene, manifest) for manifest in completing),
        lambda: _describe_all(scene, completing),
        150,
    )
    outcomes = {name: scene.assess("", answer, name) for name, answer in answers.items()}
    yield from (
        dataclasses.replace(outcomes[_name(base, word)], description=description)
        for description, base, _, word in admitted
    )


def _name(base: Manifest, word: str) -> str:
    return f"{base['metadata']['name']}-{WORDS.index(word)}"


def _is_done(scene: Scene, manifest: Manifest) -> bool:
    """Return whether a job is declined, or has exported and has an observed server."""
    if scene.reason_of(manifest, "Accepted")[0] == "False":
        return True
    own = server(manifest["metadata"]["name"])
    return scene.reason_of(manifest, "Exported")[0] == "True" and scene.is_observed(own)


def _describe_all(scene: Scene, jobs: list[Manifest]) -> str:
    pending = [job for job in jobs if not _is_done(scene, job)]
    return str([(job["metadata"]["name"], scene.admin.get(job).get("status")) for job in pending])[:3000]


def find_leaves(value: Any, at: Path = ()) -> list[Path]:
    """Return the paths of all strings, and of the keys of maps."""
    if isinstance(value, dict):
        keys = [(*at, name, "*key*") for name, part in value.items() if name in _MAPS and part]
        return keys + [leaf for name, part in value.items() for leaf in find_leaves(part, (*at, name))]
    if isinstance(value, list):
        return [leaf for number, part in enumerate(value) for leaf in find_leaves(part, (*at, number))]
    return [at] if isinstance(value, str) else []


def put_word(manifest: Manifest, leaf: Path, word: str) -> Manifest:
    """Return a copy of the manifest with a word in one field."""
    changed = copy.deepcopy(manifest)
    part: Any = changed["spec"]
    *parents, last = leaf
    for step in parents:
        part = part[step]
    if last == "*key*":
        part[word] = part.pop(next(iter(part)))
    else:
        part[last] = word
    return changed


def describe(leaf: Path) -> str:
    """Return a field's path as Kubernetes writes it, without indices, such as `spec.a[].b`."""
    text = "spec"
    for step in leaf:
        text += "[]" if isinstance(step, int) else "{}" if step == "*key*" else f".{step}"
    return text


def text_fields(plural: str) -> set[str]:
    """Return every string field of a kind without an enum, by its schema."""
    crd = yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return set(_fields_in(schema, "spec"))


def _fields_in(schema: dict[str, Any], at: str) -> Iterator[str]:
    is_text = schema.get("type") == "string" or "x-kubernetes-int-or-string" in schema
    if is_text and "enum" not in schema:
        yield at
    for name, part in schema.get("properties", {}).items():
        yield from _fields_in(part, f"{at}.{name}")
    if "items" in schema:
        yield from _fields_in(schema["items"], f"{at}[]")
    if "additionalProperties" in schema:
        yield f"{at}{{}}"
