"""The other ways to train, through the real images: preferences, graders, several nodes."""

import json

import pytest
from e2e.jobs import finetunejob
from e2e.kubectl import Kubectl
from finetune_api.meta import JOB_LABEL
from waiting import wait_for


@pytest.mark.parametrize(("name", "metric"), [("dpo", "PreferenceAccuracy"), ("grpo", "Grader")])
def test_what_was_preferred_or_rewarded_is_proven_on_held_out_data(
    kubectl: Kubectl, namespace: str, begun: None, name: str, metric: str
) -> None:
    kubectl.wait_for_condition(namespace, name, "Ready", 900)
    status = kubectl.status(namespace, name)
    assert status["method"] == f"{name}/lora"
    assert status["hyperparameters"]["microBatchSize"] == 4
    assert status["export"]["merged"]["uri"] == status["artifact"]["uri"].replace("/adapter/", "/model/")
    compared = next(one for one in status["evaluation"]["metrics"] if one["metric"] == metric)
    assert compared["tuned"] >= compared["base"]


def test_two_pods_of_two_processes_lose_one_and_a_failed_gate_serves_nothing_and_says_why(
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
            evaluation={"gates": [{"metric": "ExactMatch", "minGain": 1}], "maxExamples": 6, "maxNewTokens": 8},
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
