"""What `kubectl apply` refuses, and what it fills in: by the real API server, from the generated schema alone."""

from typing import Any

import pytest
from api.conftest import apply, finetunejob
from cluster.control_plane import Cluster
from cluster.layout import ClusterError

LONG = "a" * 41


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"model": None}, "spec.model: Required value"),
        ({"model": {"uri": "s3://b/model"}}, "spec.model.uri"),
        ({"model": {"uri": "s3://bucket/model", "revision": "v1"}}, "revision is for models on the hub"),
        ({"model": {"uri": "pvc://models/base", "secretRef": {"name": "x"}}}, "secretRef is for models"),
        ({"dataset": {"train": {"uri": "configmap://d/x", "secretRef": {"name": "x"}}}}, "secretRef is for data"),
        ({"model": {"uri": "pvc://models/../../etc"}}, "spec.model.uri"),
        (
            {"model": {"uri": "pvc://models/base", "revision": "main"}},
            "revision is for models on the hub",
        ),
        ({"model": {"uri": "hf://org/name", "earlierAdapter": "Merge"}}, "earlierAdapter is for models of an earlier"),
        ({"dataset": {"train": {"uri": "http://example.com/x"}}}, "spec.dataset.train.uri"),
        ({"dataset": {"train": {"uri": "pvc://d/x"}, "holdout": 0.9}}, "spec.dataset.holdout"),
        ({"dataset": {"train": {"uri": "pvc://d/x"}, "holdout": 0}}, "spec.dataset.holdout"),
        ({"dataset": {"train": {"uri": "pvc://d/x"}, "validation": {"uri": "pvc://d/y"}, "holdout": 0.1}}, "not both"),
        ({"dataset": {"train": {"uri": "pvc://d/x"}, "format": "Excel"}}, "spec.dataset.format"),
        ({"dataset": {"train": {"uri": "pvc://d/x"}, "format": "Preference"}}, "method.sft learns from"),
        ({"dataset": {"train": {"uri": "pvc://d/x", "revision": "v1"}}}, "revision is for datasets"),
        ({"method": {}}, "choose a method"),
        ({"adapter": {}}, "choose an adapter"),
        ({"adapter": {"lora": {"rank": 0}}}, "spec.adapter.lora.rank"),
        ({"adapter": {"lora": {"dropout": 1}}}, "spec.adapter.lora.dropout"),
        ({"hyperparameters": {"learningRate": 0}}, "spec.hyperparameters.learningRate"),
        ({"hyperparameters": {"batchSize": 8, "microBatchSize": 3}}, "microBatchSize must divide batchSize"),
        ({"hyperparameters": {"seed": -1}}, "spec.hyperparameters.seed"),
        ({"compute": {"resources": {"memory": "lots"}}}, "spec.compute.resources.memory"),
        ({"compute": {"resources": {"gpus": 99}}}, "spec.compute.resources.gpus"),
        ({"compute": {"nodeSelector": {"bad key!": "x"}}}, "keys must match"),
        ({"compute": {"tolerations": [{"key": "gpu", "operator": "Equal"}]}}, "give value with operator Equal"),
        ({"evaluation": {"gates": [{"metric": "Luck", "minGain": 0}]}}, "spec.evaluation.gates[0].metric"),
        ({"evaluation": {"gates": [{"metric": "RougeL"}]}}, "exactly one of minGain and maxLoss"),
        ({"output": {"uri": "hf://org/name"}}, "spec.output.uri"),
        ({"serving": {"modelName": "bot"}}, "exactly one of server and template"),
        ({"serving": {"modelName": "Bot", "server": "s"}}, "spec.serving.modelName"),
        ({"serving": {"modelName": "base", "server": "s"}}, "base model's own"),
        ({"serving": {"modelName": "b", "template": {"lora": {"maxRank": 20}}}}, "spec.serving.template.lora.maxRank"),
        (
            {"adapter": {"lora": {"rank": 16}}, "serving": {"modelName": "b", "template": {"lora": {"maxRank": 8}}}},
            "above",
        ),
        ({"retries": 99}, "spec.retries"),
        ({"podTemplate": {"hostNetwork": True}}, "unknown field"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_field(cluster: Cluster, spec: dict[str, Any], message: str) -> None:
    manifest = finetunejob("wrong", "default", **spec)
    manifest["spec"] = {key: value for key, value in manifest["spec"].items() if value is not None}
    with pytest.raises(ClusterError) as error:
        apply(cluster, manifest)
    assert message in str(error.value)


@pytest.mark.parametrize("name", [LONG, "1st", "a.b"])
def test_a_name_that_children_could_not_carry_is_refused(cluster: Cluster, name: str) -> None:
    with pytest.raises(ClusterError, match="metadata.name: at most 40"):
        apply(cluster, finetunejob(name, "default"))


def test_defaults_are_filled_in_and_the_spec_cannot_be_changed(cluster: Cluster) -> None:
    apply(cluster, finetunejob("defaults", "default"))
    path = "{.spec.hyperparameters.learningRate} {.spec.compute.resources.cpu} {.spec.evaluation.gates[0].metric}"
    shown = cluster.run_kubectl("get", "ftj", "defaults", "-o", f"jsonpath={path} {{.spec.retries}}")
    assert shown == "0.0002 2 Perplexity 3"
    with pytest.raises(ClusterError, match="the spec cannot be changed: make another FineTuneJob"):
        apply(cluster, finetunejob("defaults", "default", retries=1))
    cluster.run_kubectl("delete", "ftj", "defaults")


def test_a_servers_model_cannot_be_changed(cluster: Cluster) -> None:
    server = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": "fixed", "namespace": "default"},
        "spec": {"model": {"uri": "pvc://models/base"}},
    }
    apply(cluster, server)
    with pytest.raises(ClusterError, match="model cannot be changed"):
        apply(cluster, server | {"spec": {"model": {"uri": "pvc://models/other"}}})
    apply(cluster, server | {"spec": {"model": {"uri": "pvc://models/base"}, "replicas": 2}})
    cluster.run_kubectl("delete", "ms", "fixed")


def test_explain_describes_fields_with_their_units(cluster: Cluster) -> None:
    text = cluster.run_kubectl("explain", "finetunejob.spec.compute.checkpointEvery")
    assert "Optimizer steps between two checkpoints" in text
    kinds = cluster.run_kubectl("api-resources", "--categories=ai", "-o", "name").split()
    assert kinds == ["finetunejobs.finetune.dev", "modelservers.finetune.dev"]
