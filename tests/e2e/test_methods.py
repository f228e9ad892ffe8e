"""The other training methods through the real images: DPO, GRPO, several nodes."""

import json

import pytest
from e2e.jobs import finetunejob
from e2e.kubectl import Kubectl
from finetune_api.meta import JOB_LABEL
from waiting import wait_for


@pytest.mark.parametrize(("name", "metric"), [("dpo", "PreferenceAccuracy"), ("grpo", "Grader")])
def test_dpo_and_grpo_are_evaluated_on_held_out_data(
    kubectl: Kubectl, namespace: str, method_jobs: None, name: str, metric: str
) -> None:
    kubectl.wait_for_condition(namespace, name, "Ready", 900)
    status = kubectl.status(namespace, name)
    assert status["method"] == f"{name}/lora"
    assert status["hyperparameters"]["microBatchSize"] == 4
    assert status["export"]["merged"]["uri"] == status["artifact"]["uri"].replace("/adapter/", "/model/")
    result = next(result for result in status["evaluation"]["metrics"] if result["metric"] == metric)
    assert result["tuned"] >= result["base"]


def test_a_distributed_training_survives_a_lost_pod_and_a_failed_gate_is_not_served(
    kubectl: Kubectl, namespace: str
) -> None:
    values = {"epochs": 15, "learningRate": 0.001, "batchSize": 4, "maxLength": 64}
    compute = {
        "resources": {"cpu": "400m", "memory": "3Gi"},
        "nodes": 2,
        "processesPerNode": 2,
        "saveSteps": 5,
    }
    kubectl.apply(
        finetunejob(
            "nodes",
            namespace,
            method={"sft": {"packing": False}},
            hyperparameters=values,
            compute=compute,
            evaluation={
                "gates": [{"metric": "ExactMatch", "minGain": 1}],
                "minExamples": 2,
                "maxExamples": 6,
                "maxNewTokens": 8,
            },
            serving={"modelName": "too-proud", "template": {}},
        )
    )
    wait_for(
        lambda: kubectl.status(namespace, "nodes").get("progress", {}).get("step", 0) > 5,
        lambda: f"a first checkpoint: {kubectl.explain(namespace, 'nodes')}",
        300,
    )
    selector = f"{JOB_LABEL}=nodes,finetune.dev/stage=Train"
    pods = json.loads(kubectl.run("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))["items"]
    assert sorted(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] for pod in pods) == [
        "0",
        "1",
    ]
    kubectl.run("delete", "pod", "-n", namespace, pods[-1]["metadata"]["name"], "--grace-period=0", "--force")
    failed = kubectl.wait_for_condition(namespace, "nodes", "Failed", 900)
    assert failed["reason"] == "GatesFailed"
    assert "ExactMatch" in failed["message"]
    assert kubectl.get("modelserver", namespace, "nodes") is None
    assert "GatesFailed" in kubectl.run("get", "ftj", "-n", namespace, "nodes")
    status = kubectl.status(namespace, "nodes")
    assert status["training"]["resumedFromStep"] > 0
    assert status["training"]["steps"] == status["progress"]["steps"] == 9 * 15
    assert status["attempts"] == {"prepare": 1, "train": 2, "evaluate": 1, "export": 0, "disruptions": 1}
