"""URIs and names that point outside their volume, into the node's network, or to objects of others."""

from collections.abc import Iterator
from typing import Any

from escalations.caller import Answer
from escalations.scene import (
    DECLINED,
    MINE,
    OTHERS,
    REFUSED,
    SUCCEEDED,
    Attempt,
    Manifest,
    Scene,
    job,
    path,
    server,
)
from escalations.words import text_fields

_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
TRAVERSALS = (
    "pvc://data/../others/x",
    "pvc://../others",
    "pvc://data/%2e%2e/x",
    "pvc://data//etc/passwd",
    "pvc://data/./x",
    "pvc://data/x/..",
    "pvc://data/x\n/etc",
    "pvc://others.victim/x",
    "pvc://victim/others/../x",
    "configmap://others/../x",
    "configmap://victim/others/key",
    "hf://../..",
    "hf://org/../x",
    "s3://bucket/../x",
    "s3://../x",
    "file:///etc/passwd",
    "/etc/passwd",
    "secret://others/HF_TOKEN",
    "finetunejob://victim/job",
    "finetunejob://../job",
    "hostpath:///",
)
ADDRESSES = (
    "169.254.169.254/latest/meta-data",
    "169.254.169.254:80/x",
    "127.0.0.1/x",
    "127.1/x",
    "0/x",
    "0.0.0.0/x",
    "2852039166/x",
    "0xa9fea9fe/x",
    "0xa9.0xfe.0xa9.0xfe/x",
    "0251.0376.0251.0376/x",
    "[::1]/x",
    "[::ffff:169.254.169.254]/x",
    "[fd00:ec2::254]/x",
    "localhost/x",
    "localhost:10250/x",
    "metadata.google.internal/x",
    "kubernetes.default.svc/api",
    "10.195.64.1/api",
    "data.example.com:6443/x",
    "data.example.com.evil.com/x",
    "data.example.com@evil.com/x",
    "user:pass@data.example.com/x",
    "evil.com/data.example.com",
    "evil.com#data.example.com/x",
    "mirror.example/x",
    "evilmirror.example/x",
    "evil.com\\@data.example.com/x",
)
"""None of these hosts is in the operator's list of HTTPS hosts."""
_PLACES: tuple[tuple[str, ...], ...] = (
    ("dataset", "train", "uri"),
    ("dataset", "mix", "uri"),
    ("dataset", "validation", "uri"),
    ("model", "uri"),
    ("model", "chatTemplate"),
    ("output", "uri"),
    ("output", "bucket", "uri"),
    ("output", "hub", "uri"),
)


def attempt_uris(scene: Scene) -> Iterator[Attempt]:
    """Try each URI in each URI field; the operator must decline an admitted one before it creates a pod."""
    tried: list[tuple[str, Manifest, Answer]] = []
    for place in _PLACES:
        for uri in (*TRAVERSALS, *(f"https://{address}" for address in ADDRESSES)):
            manifest = _put(job(f"uri-{len(tried)}"), place, uri)
            tried.append((f"{'.'.join(place)}: {uri}", manifest, scene.tenant.create(manifest)))
    for address in ADDRESSES:
        if address.startswith(("127.", "localhost", "10.", "kubernetes", "data.", "evil", "mirror")):
            continue  # A tracker may be at any host that the network policies allow, including the pod itself.
        mlflow = {"trackingUri": f"http://{address}", "experiment": "x"}
        manifest = job(f"uri-{len(tried)}", tracking={"mlflow": mlflow})
        tried.append((f"tracking.mlflow.trackingUri: {address}", manifest, scene.tenant.create(manifest)))
    scene.wait_for_operator([manifest for _, manifest, answer in tried if not answer.is_refused])
    for description, manifest, answer in tried:
        templates = [] if answer.is_refused else scene.templates_of(manifest["metadata"]["name"])
        evidence = answer.message if answer.is_refused else str(scene.reason_of(manifest, "Accepted"))
        outcome = REFUSED if answer.is_refused else DECLINED
        yield Attempt(description, SUCCEEDED if templates else outcome, evidence)


def _put(manifest: Manifest, place: tuple[str, ...], value: str) -> Manifest:
    part: Any = manifest["spec"]
    if place[:2] in (("output", "bucket"), ("output", "hub")):
        part["output"] = {place[1]: {"secretRef": {"name": MINE}}}
    if place[:2] == ("dataset", "mix"):
        part["dataset"] = {"mix": [{"uri": "pvc://data/x"}, {"uri": value}]}
        return manifest
    for step in place[:-1]:
        part = part.setdefault(step, {})
    part[place[-1]] = value
    return manifest


def attempt_secrets(scene: Scene) -> Iterator[Attempt]:
    """Name a Secret or ConfigMap that the author may not get, in every field and with every write method."""
    for kind, base in (("finetunejobs", job("secrets")), ("modelservers", server("secrets"))):
        for field in sorted(secret_fields(kind)):
            manifest = build_with_secret(base, field, OTHERS)
            yield _assess(f"{kind} {field} = {OTHERS}", scene, manifest, scene.tenant.create(manifest))
            url = path(kind, "secrets")
            answer = scene.tenant.call("PATCH", f"{url}?fieldManager=x", manifest, _APPLY)
            yield _assess(f"{kind} {field} = {OTHERS}, applied", scene, manifest, answer)
    theirs, mine = {"uri": f"configmap://{OTHERS}/train.jsonl"}, {"uri": "pvc://data/x"}
    for dataset in ({"train": theirs}, {"train": mine, "validation": theirs}, {"mix": [*[mine] * 15, theirs]}):
        manifest = job("secrets", dataset=dataset)
        yield _assess(f"a ConfigMap in dataset: {list(dataset)[-1]}", scene, manifest, scene.tenant.create(manifest))
    theirs = {"uri": "hf://org/base", "chatTemplate": f"configmap://{OTHERS}/chat.jinja"}
    for manifest in (job("secrets", model=theirs), server("secrets", model=theirs)):
        yield _assess("a chat template of another ConfigMap", scene, manifest, scene.tenant.create(manifest))
    created = server("secrets-later", auth={"secretRef": {"name": MINE}})
    assert not scene.tenant.create(created).is_refused
    patch = {"spec": {"auth": {"secretRef": {"name": OTHERS}}}}
    answer = scene.tenant.call("PATCH", path("modelservers", "secrets-later"), patch, _MERGE)
    yield _assess("a server's Secret replaced", scene, created, answer)
    owner = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "name": "x", "uid": "x", "controller": True}
    forged = server("secrets", auth={"secretRef": {"name": OTHERS}})
    forged["metadata"]["ownerReferences"] = [owner]
    yield _assess("a server with a forged FineTuneJob as owner", scene, forged, scene.tenant.create(forged))
    for name in ("others/x", "victim/others", "others.victim", "../others", "OTHERS"):
        manifest = job("secrets", model={"uri": "hf://org/base", "secretRef": {"name": name}})
        yield _assess(f"a Secret named {name}", scene, manifest, scene.tenant.create(manifest))
    with_namespace = {"name": MINE, "namespace": "victim"}
    manifest = job("secrets-namespace", model={"uri": "hf://org/base", "secretRef": with_namespace})
    answer = scene.tenant.create(manifest)
    kept = "namespace" in answer.body["spec"]["model"]["secretRef"]
    yield Attempt("a Secret of another namespace", SUCCEEDED if kept else DECLINED, "the field is dropped")


def _assess(description: str, scene: Scene, manifest: Manifest, answer: Any) -> Attempt:
    """Return the outcome from the API server's answer and from the stored objects."""
    refused = answer.is_refused and OTHERS not in str(_specs(scene, manifest))
    return Attempt(description, REFUSED if refused else SUCCEEDED, answer.message)


def _specs(scene: Scene, manifest: Manifest) -> list[Any]:
    objects = scene.admin.list(path(f"{manifest['kind'].lower()}s"))
    return [item["spec"] for item in objects if item["metadata"]["name"] == manifest["metadata"]["name"]]


def secret_fields(plural: str) -> set[str]:
    """Return the fields of a kind's spec that name a Secret, by its schema, such as `model.secretRef`."""
    names = {field.removeprefix("spec.") for field in text_fields(plural)}
    return {name.removesuffix(".name") for name in names if name.endswith("ecretRef.name")}


def build_with_secret(base: Manifest, field: str, secret: str) -> Manifest:
    """Return a valid object that names a Secret in one field."""
    source = {"uri": "hf://org/data"}
    if field == "dataset.mix[].secretRef":
        # The last source that the schema admits.
        mix = [*[source] * 15, source | {"secretRef": {"name": secret}}]
        return base | {"spec": base["spec"] | {"dataset": {"mix": mix}}}
    siblings: dict[str, Any] = {
        "model": {"uri": "hf://org/base"},
        "dataset.train": source,
        "dataset.validation": source,
        "output.bucket": {"uri": "s3://bucket/x"},
        "output.hub": {"uri": "hf://org/tuned"},
        "tracking.wandb": {"project": "x"},
        "tracking.mlflow": {"trackingUri": "https://mlflow.example.com", "experiment": "x"},
        "serving.template.auth": {},
        "auth": {},
    }
    *parents, last = field.split(".")
    spec: Any = {name: dict(part) if isinstance(part, dict) else part for name, part in base["spec"].items()}
    part = spec
    for step in parents[:-1]:
        part = part.setdefault(step, {})
    part[parents[-1]] = siblings[".".join(parents)] | {last: {"name": secret}}
    if field.startswith("serving."):
        spec["serving"]["modelName"] = "bot"
    return base | {"spec": spec}
