"""Secrets with unique values: after jobs ran with them, only the Secrets hold the values."""

import base64
import copy
import json
import secrets
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from api.account import Account
from api.conftest import Operator
from api.player import Player
from escalations.caller import Caller
from escalations.references import secret_fields
from escalations.scene import TENANT, Scene
from escalations.words import BASES
from finetune_api.contract.mounts import OPTIONAL_KEYS, REQUIRED_KEYS
from finetune_api.tracking import MLFLOW_KEYS, WANDB_KEYS
from waiting import wait_for

KEYS = {key for keys in (*REQUIRED_KEYS.values(), *OPTIONAL_KEYS.values(), WANDB_KEYS, MLFLOW_KEYS) for key in keys}
NAME = "canary"


@pytest.fixture(scope="module")
def canaries(scene: Scene, operator: Operator, player: Player) -> list[str]:
    """The values, after a job and its server used a different Secret in every Secret field.

    `dataset.train` excludes `dataset.mix`.
    """
    job = copy.deepcopy(BASES[0])
    job["metadata"]["name"] = NAME
    values: list[str] = []
    for field in sorted(secret_fields("finetunejobs") - {"dataset.train.secretRef"}):
        name = f"{NAME}-{len(values)}"
        values += make_secret(scene, name)
        part: Any = job["spec"]
        for step in field.split("."):
            part = part[step.removesuffix("[]")]
            part = part[0] if step.endswith("[]") else part
        part["name"] = name
    scene.played.add(NAME)
    answer = scene.admin.create(job)
    assert not answer.is_refused, answer.message
    wait_for(lambda: scene.reason_of(job, "Exported")[0] == "True", lambda: str(scene.admin.find(job)), 90)
    server = {"apiVersion": job["apiVersion"], "kind": "ModelServer", "metadata": {"name": NAME, "namespace": TENANT}}
    wait_for(lambda: scene.is_observed(server), "the job's own server")
    return values


def make_secret(scene: Scene, name: str) -> list[str]:
    """Create a Secret with all keys; return their values."""
    data = {key: secrets.token_hex(16) for key in (*KEYS, "a")}
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": TENANT}}
    answer = scene.admin.create(manifest | {"stringData": data})
    assert answer.code == 201, answer.message
    return list(data.values())


def readable_objects(caller: Caller, account: Account) -> Iterator[str]:
    """Return every object that the operator may read, as JSON; a list for each kind."""
    for group, resource, verb in account.rights:
        if verb == "list":
            answer = caller.call(
                "GET", f"/apis/{group}/{version_of(caller, group)}/{resource}" if group else f"/api/v1/{resource}"
            )
            assert answer.code == 200, answer.message
            yield json.dumps(answer.body)


def version_of(caller: Caller, group: str) -> str:
    """Return the version of a group that the API server prefers."""
    return str(caller.call("GET", f"/apis/{group}").body["preferredVersion"]["version"])


def test_secret_values_are_not_in_objects_events_metrics_or_logs(
    scene: Scene, operator: Operator, account: Account, canaries: list[str]
) -> None:
    with closing(Caller(account.kubeconfig)) as caller:
        objects = "\n".join(readable_objects(caller, account))
    events = json.dumps(scene.admin.list("/apis/events.k8s.io/v1/events"))
    with urllib.request.urlopen(operator.metrics_url, timeout=5) as response:
        metrics = response.read().decode()
    assert len(canaries) > 80
    for text in (objects, events, metrics, operator.log.read_text()):
        assert text
        forms = {form for value in canaries for form in (value, base64.b64encode(value.encode()).decode())}
        assert not [form for form in forms if form in text]
    # The names appear, so the pods used the Secrets; and the Secrets hold the values.
    names = {f"{NAME}-{number * len(canaries) // 8}" for number in range(8)}
    assert len(names) == 8
    assert all(f'"{name}"' in objects for name in names)
    kept = json.dumps(scene.admin.list(f"/api/v1/namespaces/{TENANT}/secrets"))
    assert all(base64.b64encode(value.encode()).decode() in kept for value in canaries)


def test_the_operator_cannot_read_a_secret(account: Account, canaries: list[str]) -> None:
    assert not [right for right in account.rights if right[1].startswith(("secrets", "*")) or right[2] == "*"]
    with closing(Caller(account.kubeconfig)) as caller:
        for path in ("secrets", f"secrets/{NAME}-0", "secrets?watch=true"):
            assert caller.call("GET", f"/api/v1/namespaces/{TENANT}/{path}").code == 403
