"""The other ways to train, through the real images: preferences, graders, several nodes."""

import json
from typing import Any

import pytest
from e2e.jobs import finetunejob
from e2e.kubectl import Kubectl
from finetune_api.meta import JOB_LABEL
from waiting import wait_for

PAIRS = [
    {"prompt": f"is thing {number} good?", "chosen": f"yes, {number} is good", "rejected": f"no, {number} is bad"}
    for number in range(40)
]
PROMPTS = [{"prompt": f"say something about {number}", "letter": "e"} for number in range(40)]
GRADER = {"name": "has-letter", "stringCheck": {"operation": "like", "referenceField": "letter"}}


def data(namespace: str, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a ConfigMap with rows."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"train.jsonl": text}}


@pytest.fixture(scope="module")
def methods(kubectl: Kubectl, namespace: str) -> None:
    """A job of each method, side by side."""
    values = {"epochs": 4, "learningRate": 0.005, "batchSize": 4, "maxLength": 64}
    answers = {"maxExamples": 10, "maxAnswerTokens": 8}
    gate = {"metric": "PreferenceAccuracy", "maxLoss": 1}
    graded = {"graders": [GRADER], "gates": [{"metric": "Grader", "grader": GRADER["name"], "maxLoss": 1}]}
    rewarded = {"graders": [GRADER], "generations": 4, "maxAnswerTokens": 8}
    for name, rows, method, evaluation in (
        ("dpo", PAIRS, {"dpo": {}}, {"gates": [gate]}),
        ("grpo", PROMPTS, {"grpo": rewarded}, graded),
    ):
        kubectl.apply(
            data(namespace, f"{name}-data", rows),
            finetunejob(
                name,
                namespace,
                dataset={"train": {"uri": f"configmap://{name}-data/train.jsonl"}, "holdout": 0.25},
                method=method,
                hyperparameters=values,
                evaluation=answers | evaluation,
                output={"merged": True},
            ),
        )


@pytest.mark.parametrize(("name", "metric"), [("dpo", "PreferenceAccuracy"), ("grpo", "Grader")])
def test_what_was_preferred_or_rewarded_is_proven_on_held_out_data(
    kubectl: Kubectl, namespace: str, methods: None, name: str, metric: str
) -> None:
    kubectl.wait_for_condition(namespace, name, "Ready", 900)
    status = kubectl.status(namespace, name)
    assert status["method"] == f"{name}/lora"
    assert status["hyperparameters"]["microBatchSize"] == 4
    assert status["export"]["merged"]["uri"] == status["artifact"]["uri"].replace("/adapter/", "/model/")
    compared = next(one for one in status["evaluation"]["metrics"] if one["metric"] == metric)
    assert compared["tuned"] >= compared["base"]


def test_two_pods_of_two_processes_lose_one_and_go_on_from_their_checkpoint(kubectl: Kubectl, namespace: str) -> None:
    values = {"epochs": 30, "learningRate": 0.001, "batchSize": 4, "maxLength": 64}
    compute = {
        "resources": {"cpu": "500m", "memory": "3Gi"},
        "nodes": 2,
        "processesPerNode": 2,
        "checkpointEvery": 5,
    }
    kubectl.apply(
        finetunejob("nodes", namespace, method={"sft": {"packing": False}}, hyperparameters=values, compute=compute)
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
    kubectl.wait_for_condition(namespace, "nodes", "Ready", 900)
    status = kubectl.status(namespace, "nodes")
    assert status["training"]["resumedFromStep"] > 0
    assert status["training"]["steps"] == status["progress"]["steps"] == 9 * 30
    assert status["attempts"] == {"prepare": 1, "train": 2, "evaluate": 1, "export": 0, "disruptions": 1}
