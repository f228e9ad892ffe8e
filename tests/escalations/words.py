"""Hostile words in every text field of both kinds: as arguments, shell text, JSON, paths and environment."""

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
_SEED, _WHOLE_WAYS = 7, 3
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
}
_HUB = {"revision": "main", "secretRef": _SECRET}
_WRITTEN = (
    job(
        "supervised",
        model={"uri": "hf://org/base"} | _HUB,
        dataset={"train": {"uri": "hf://org/data"} | _HUB, "validation": {"uri": "hf://org/held"} | _HUB},
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
        method={"grpo": {"graders": _GRADERS}},
        # Its training waits in the queue for ever, which takes no job that goes its whole way.
        compute={"queueName": "queue"},
        serving={"modelName": "bot", "server": "shared"},
    ),
    server("served", **_SERVER, model={"uri": "hf://org/base"} | _HUB, pins={"bot": "a"}),
)
# Written out, so that no two places are one dictionary.
BASES: tuple[Manifest, ...] = tuple(json.loads(json.dumps(_WRITTEN)))


def attempt_words(scene: Scene) -> Iterator[Attempt]:
    """Try each word in each text field alone; then all that were admitted, together in real objects."""
    assert not scene.tenant.create(server("shared")).is_refused
    pairs = [(base, leaf, word) for base in BASES for leaf in find_leaves(base["spec"]) for word in WORDS]
    chosen = pairs if scene.is_thorough else random.Random(_SEED).sample(pairs, len(pairs) // 5)  # noqa: S311
    admitted = []
    for base, leaf, word in chosen:
        answer = scene.tenant.create(put_word(base, leaf, word), dry_run=True)
        what = f"{base['kind']} {describe(leaf)} = {word[:60]!r}"
        if answer.is_refused:
            yield scene.judge(what, answer, "")
        else:
            admitted.append((what, base, leaf, word))
    yield from _attempt_together(scene, admitted)


def _attempt_together(scene: Scene, admitted: list[tuple[str, Manifest, Path, str]]) -> Iterator[Attempt]:
    """Make one object for each word, with the word wherever it was admitted; some jobs go their whole way."""
    made: dict[str, Manifest] = {}
    for _, base, leaf, word in admitted:
        name = _name(base, word)
        before = made.get(name) or copy.deepcopy(base)
        before["metadata"]["name"] = name
        tried = put_word(before, leaf, word)
        if not scene.tenant.create(tried, dry_run=True).is_refused:
            made[name] = tried
    answers = {name: scene.tenant.create(manifest) for name, manifest in made.items()}
    scene.wait_for_operator(list(made.values()))
    jobs = [one for one in made.values() if "template" in one["spec"].get("serving", {})]
    whole = jobs if scene.is_thorough else jobs[:_WHOLE_WAYS]
    assert whole
    scene.played.update(one["metadata"]["name"] for one in whole)
    wait_for(lambda: all(_is_through(scene, one) for one in whole), lambda: _describe_all(scene, whole), 150)
    judged = {name: scene.judge("", answer, name) for name, answer in answers.items()}
    yield from (dataclasses.replace(judged[_name(base, word)], what=what) for what, base, _, word in admitted)


def _name(base: Manifest, word: str) -> str:
    return f"{base['metadata']['name']}-{WORDS.index(word)}"


def _is_through(scene: Scene, manifest: Manifest) -> bool:
    """Tell whether a job has all its pods, those of its server too, or is declined."""
    if scene.reason_of(manifest, "Accepted")[0] == "False":
        return True
    own = server(manifest["metadata"]["name"])
    return scene.reason_of(manifest, "Exported")[0] == "True" and scene.is_looked_at(own)


def _describe_all(scene: Scene, jobs: list[Manifest]) -> str:
    left = [one for one in jobs if not _is_through(scene, one)]
    return str([(one["metadata"]["name"], scene.admin.get(one).get("status")) for one in left])[:3000]


def find_leaves(value: Any, at: Path = ()) -> list[Path]:
    """Return where texts stand that are no choice of a list, and where keys of maps do."""
    if isinstance(value, dict):
        keys = [(*at, name, "*key*") for name, part in value.items() if name in ("nodeSelector", "pins") and part]
        return keys + [leaf for name, part in value.items() for leaf in find_leaves(part, (*at, name))]
    if isinstance(value, list):
        return [leaf for number, part in enumerate(value) for leaf in find_leaves(part, (*at, number))]
    return [at] if isinstance(value, str) else []


def put_word(manifest: Manifest, leaf: Path, word: str) -> Manifest:
    """Return the manifest with a word in one place."""
    changed = copy.deepcopy(manifest)
    part: Any = changed["spec"]
    *way, last = leaf
    for step in way:
        part = part[step]
    if last == "*key*":
        part[word] = part.pop(next(iter(part)))
    else:
        part[last] = word
    return changed


def describe(leaf: Path) -> str:
    """Return a field's path as Kubernetes writes it, without numbers: `spec.a[].b`."""
    text = "spec"
    for step in leaf:
        text += "[]" if isinstance(step, int) else "{}" if step == "*key*" else f".{step}"
    return text


def text_fields(plural: str) -> set[str]:
    """Return every text field of a kind that is no choice of a list, as its schema has it."""
    crd = yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return set(_fields_in(schema, "spec"))


def _fields_in(schema: dict[str, Any], at: str) -> Iterator[str]:
    if schema.get("type") == "string" and "enum" not in schema:
        yield at
    for name, part in schema.get("properties", {}).items():
        yield from _fields_in(part, f"{at}.{name}")
    if "items" in schema:
        yield from _fields_in(schema["items"], f"{at}[]")
    if "additionalProperties" in schema:
        yield f"{at}{{}}"
