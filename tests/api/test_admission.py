"""The API server's validation and defaults, from the generated CRDs alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from api.conftest import apply, finetunejob, modelserver
from cluster.control_plane import Cluster
from cluster.layout import ClusterError

MANIFESTS = Path(__file__).parents[1] / "bad_inputs" / "manifests"
CASES = [
    pytest.param(kind, case, id=f"{kind}: {case['case']}")
    for kind in ("finetunejobs", "modelservers")
    for case in yaml.safe_load((MANIFESTS / f"{kind}.yaml").read_text())
]


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_a_bad_manifest_is_refused_with_the_field(cluster: Cluster, kind: str, case: dict[str, Any]) -> None:
    with pytest.raises(ClusterError) as error:
        apply(cluster, build_manifest(kind, case))
    assert case["message"] in " ".join(str(error.value).split())


def build_manifest(kind: str, case: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a case in `tests/bad_inputs/manifests`."""
    name, spec = case.get("name", "wrong"), case.get("spec", {})
    if kind == "modelservers":
        return modelserver(name, "default") | {"spec": spec}
    manifest = finetunejob(name, "default", **spec)
    manifest["spec"] = {key: value for key, value in manifest["spec"].items() if value is not None}
    return manifest


def test_defaults_are_set_and_only_scheduling_fields_can_be_changed(cluster: Cluster) -> None:
    serving = {"modelName": "bot", "template": {}, "rollout": {"canary": {}}}
    apply(cluster, finetunejob("defaults", "default", budget={"maxCost": 5}, serving=serving))
    path = "{.spec.hyperparameters.seed} {.spec.compute.resources.cpu} {.spec.evaluation.maxExamples}"
    output = cluster.run_kubectl("get", "ftj", "defaults", "-o", f"jsonpath={path} {{.spec.retries}}")
    assert output == "42 2 200 3"
    for changes in (
        {"retries": 1},
        {"budget": None},
        {"budget": {"maxCost": 6}},
        {"budget": {"approval": "Manual"}},
        {"output": {"uri": "pvc://other"}},
        {"adapter": {"lora": {"rank": 8}}},
        {"approved": True, "retries": 1},
        {"priority": 5},
        {"activeDeadlineSeconds": 5},
        {"serving": None},
        {"serving": {"modelName": "other"}},
        {"serving": {"template": {"replicas": 2}}},
        {"serving": {"template": None, "server": "other", "rollout": None}},
    ):
        with pytest.raises(ClusterError, match="only suspend, approved, .* can be changed: create another FineTuneJob"):
            patch(cluster, "defaults", changes)
    for allowed in (
        {"suspend": True},
        {"ttlSecondsAfterFinished": 60},
        {"ttlSecondsAfterFinished": None},
        {"serving": {"rollout": {"canary": {"steps": [{"weight": 5}]}}}},
        {"serving": {"rollout": None}, "suspend": False},
    ):
        patch(cluster, "defaults", allowed)
    path = "{.spec.suspend} {.spec.serving}"
    assert cluster.run_kubectl("get", "ftj", "defaults", "-o", f"jsonpath={path}").startswith("false {")
    for approved in (True, False):
        patch(cluster, "defaults", {"approved": approved})
        output = cluster.run_kubectl("get", "ftj", "defaults", "-o", "jsonpath={.spec.approved}")
        assert output == str(approved).lower()
    cluster.run_kubectl("delete", "ftj", "defaults")


def patch(cluster: Cluster, name: str, spec: dict[str, Any]) -> None:
    """Change fields as `kubectl patch` does."""
    cluster.run_kubectl("patch", "ftj", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def test_a_servers_model_cannot_be_changed(cluster: Cluster) -> None:
    server = modelserver("fixed", "default")
    apply(cluster, server)
    with pytest.raises(ClusterError, match="model cannot be changed"):
        apply(cluster, server | {"spec": {"model": {"uri": "pvc://models/other"}}})
    apply(cluster, server | {"spec": {"model": {"uri": "pvc://models/base"}, "replicas": 2}})
    cluster.run_kubectl("delete", "ms", "fixed")


def test_explain_describes_fields_with_their_units(cluster: Cluster) -> None:
    text = cluster.run_kubectl("explain", "finetunejob.spec.compute.saveSteps")
    assert "Number of optimizer steps between two checkpoints" in " ".join(text.split())
    kinds = cluster.run_kubectl("api-resources", "--categories=ai", "-o", "name").split()
    assert kinds == ["finetunejobs.finetune.dev", "modelservers.finetune.dev"]
