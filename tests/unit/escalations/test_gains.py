"""`find_gains` finds every setting that an author must not control."""

import copy
from typing import Any

import pytest
from escalations.gains import find_gains
from finetune_api.stage import Stage
from finetune_operator.manifests.stages import build_stage_job
from finetune_operator.settings import Settings
from finetune_operator.state.views import view_job

SETTINGS = Settings.model_validate({"images": {"trainer": "trainer:1", "serving": "serving:1"}})
IMAGES = {"trainer:1", "serving:1"}


@pytest.fixture
def template() -> dict[str, Any]:
    """The pod template of a training."""
    spec = {
        "model": {"uri": "pvc://models/base"},
        "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
        "method": {"sft": {}},
        "adapter": {"lora": {}},
    }
    job = view_job({"metadata": {"name": "job", "namespace": "team", "uid": "u", "generation": 1}, "spec": spec})
    return copy.deepcopy(dict(build_stage_job(job, Stage.TRAIN, 1, SETTINGS)["spec"]["template"]))


def test_the_operators_own_template_has_no_gains(template: dict[str, Any]) -> None:
    assert find_gains(template, IMAGES) == []


POD = [
    {"hostNetwork": True},
    {"hostPID": True},
    {"serviceAccountName": "finetune-operator"},
    {"automountServiceAccountToken": True},
    {"initContainers": []},
    {"runtimeClassName": "x"},
    {"schedulerName": "x"},
    {"priorityClassName": "system-node-critical"},
    {"securityContext": {}},
    {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
    {"volumes": [{"name": "x", "projected": {}}]},
    {"tolerations": [{"operator": "Exists"}]},
    {"tolerations": [{"key": "node-role.kubernetes.io/master"}]},
    {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}},
]
CONTAINER = [
    {"image": "evil"},
    {"command": ["sh"]},
    {"args": ["sh", "-c"]},
    {"args": ["train", "--attempt=1", "--trust-remote-code"]},
    {"args": ["train", "--attempt=$(HF_TOKEN)"]},
    {"args": ["train", "--attempt=1\n--x=2"]},
    {"env": [{"name": "LD_PRELOAD", "value": "x"}]},
    {"env": [{"name": "PYTHONPATH", "value": "x"}]},
    {"env": [{"name": "PATH", "value": "x"}]},
    {"envFrom": []},
    {"securityContext": {"privileged": True}},
    {"lifecycle": {"preStop": {"exec": {"command": ["sh"]}}}},
    {"workingDir": "/"},
]


@pytest.mark.parametrize("change", POD, ids=str)
def test_a_gain_in_the_pod_is_found(template: dict[str, Any], change: dict[str, Any]) -> None:
    template["spec"] |= change
    assert find_gains(template, IMAGES)


@pytest.mark.parametrize("change", CONTAINER, ids=str)
def test_a_gain_in_the_container_is_found(template: dict[str, Any], change: dict[str, Any]) -> None:
    template["spec"]["containers"][0] |= change
    assert find_gains(template, IMAGES)


def test_an_additional_container_or_annotation_is_found(template: dict[str, Any]) -> None:
    template["spec"]["containers"].append(template["spec"]["containers"][0])
    assert find_gains(template, IMAGES) == ["an additional container"]
    template["spec"]["containers"].pop()
    template["metadata"]["annotations"] = {"sidecar.istio.io/inject": "true"}
    assert find_gains(template, IMAGES) == ["annotations sidecar.istio.io/inject"]
