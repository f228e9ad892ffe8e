"""The whole loop on a real node: prepare, train, evaluate, serve, request; and failures and interruptions."""

import json
import urllib.request
from typing import Any

import pytest
from e2e.installation import artifact_directory
from e2e.jobs import conversations, finetunejob
from e2e.kubectl import Kubectl
from e2e.prometheus import Prometheus
from finetune_api.digest import digest_directory
from finetune_api.meta import JOB_LABEL, METRICS_PORT, STAGE_LABEL
from finetune_operator.controller.pod_client import parse_progress
from openai import NotFoundError, OpenAI
from waiting import wait_for

SERVED = {
    "modelName": "price-bot",
    "template": {"resources": {"cpu": "400m", "memory": "6Gi"}, "lora": {"maxRank": 8, "maxAdapters": 2}},
}


@pytest.fixture(scope="module")
def loop(kubectl: Kubectl, namespace: str, prometheus: Prometheus, method_jobs: None) -> str:
    """A job that is trained, evaluated and served on its own ModelServer."""
    kubectl.apply(finetunejob("price", namespace, serving=SERVED))
    kubectl.wait_for_condition(namespace, "price", "Ready", 900)
    return "price"


def client(kubectl: Kubectl, namespace: str) -> OpenAI:
    """Return an OpenAI client for the server's Service."""
    service = kubectl.get("service", namespace, "price")
    assert service is not None
    return OpenAI(base_url=f"http://{service['spec']['clusterIP']}/v1", api_key="none", max_retries=0)


def test_the_tuned_model_answers_under_its_name(kubectl: Kubectl, namespace: str, loop: str) -> None:
    openai = client(kubectl, namespace)
    assert [model.id for model in openai.models.list()] == ["base", "price-bot"]
    messages: Any = [{"role": "user", "content": "what does thing 7 cost?"}]
    answers = {}
    for model in ("base", "price-bot"):
        answer = openai.chat.completions.create(model=model, messages=messages, max_tokens=16, temperature=0)
        assert answer.model == model
        answers[model] = answer.choices[0].message.content
    assert answers["base"] != answers["price-bot"]
    assert "thing" in str(answers["price-bot"])
    stream = openai.chat.completions.create(model="price-bot", messages=messages, max_tokens=16, stream=True)
    assert {chunk.model for chunk in stream} == {"price-bot"}
    with pytest.raises(NotFoundError, match="price-bot"):
        openai.chat.completions.create(model="other", messages=messages)


def test_status_shows_conditions_metrics_and_artifact(kubectl: Kubectl, namespace: str, loop: str) -> None:
    status = kubectl.status(namespace, loop)
    conditions = {condition["type"]: (condition["status"], condition["reason"]) for condition in status["conditions"]}
    assert conditions == {
        "Accepted": ("True", "Accepted"),
        "DatasetReady": ("True", "Succeeded"),
        "Approved": ("True", "WithinBudget"),
        "Trained": ("True", "Succeeded"),
        "Evaluated": ("True", "GatesPassed"),
        "Served": ("True", "AdapterLoaded"),
        "Ready": ("True", "Serving"),
    }
    assert status["dataset"]["trainExamples"] + status["dataset"]["heldoutExamples"] == 40
    assert status["progress"]["percentage"] == 100
    assert status["evaluation"]["passed"]
    perplexity = next(metric for metric in status["evaluation"]["metrics"] if metric["metric"] == "Perplexity")
    assert perplexity["tuned"] < perplexity["base"]
    assert perplexity["gainLow"] > 0
    table = kubectl.run("get", "ftj", "-n", namespace, loop)
    assert table.split("\n")[0].split() == [
        "NAME",
        "MODEL",
        "METHOD",
        "STAGE",
        "PROGRESS",
        "LOSS",
        "READY",
        "REASON",
        "AGE",
    ]
    assert "sft/lora" in table
    artifact = status["artifact"]
    assert digest_directory(artifact_directory(kubectl, namespace, artifact["uri"])) == artifact["digest"]
    reasons = {event["reason"] for event in kubectl.items("events.events.k8s.io", namespace)}
    assert {"GatesPassed", "AdapterLoaded", "Serving"} <= reasons


def test_prometheus_has_metrics_of_operator_trainer_and_server(
    kubectl: Kubectl, namespace: str, loop: str, prometheus: Prometheus
) -> None:
    prometheus.wait_for_series("last_over_time(finetune_train_step[1h])")
    prometheus.wait_for_series('finetune_operator_reconcile_seconds_count{kind="FineTuneJob"}')
    prometheus.wait_for_series('finetune_operator_stage_seconds_count{stage="train"}')
    (loaded,) = prometheus.wait_for_series("finetune_adapters_loaded")
    assert loaded["value"][1] == "1"
    client(kubectl, namespace).completions.create(model="price-bot", prompt="thing", max_tokens=2)
    requests = prometheus.wait_for_series('finetune_requests_total{model="price-bot",code="200"}')
    assert {series["metric"]["version"] for series in requests} == {"price"}


def test_a_missing_config_map_is_named_while_the_pod_waits(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(finetunejob("typo", namespace, dataset={"train": {"uri": "configmap://daat/train.jsonl"}}))
    wait_for(
        lambda: kubectl.condition(namespace, "typo", "DatasetReady").get("reason") == "VolumeNotFound",
        lambda: kubectl.explain(namespace, "typo"),
        60,
    )
    message = kubectl.condition(namespace, "typo", "DatasetReady")["message"]
    assert message.startswith("missing in the namespace: ConfigMap daat;")
    kubectl.run("delete", "finetunejob", "typo", "-n", namespace)


def test_bad_lines_are_reported_before_any_training(kubectl: Kubectl, namespace: str) -> None:
    lines = conversations(10).splitlines()
    lines[3] = '{"messages": [{"role": "asistant", "content": "hello"}]}'
    lines[6] = "not json"
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "bad", "namespace": namespace},
            "data": {"train.jsonl": "\n".join(lines)},
        },
        finetunejob("bad-data", namespace, dataset={"train": {"uri": "configmap://bad/train.jsonl"}}),
    )
    failed = kubectl.wait_for_condition(namespace, "bad-data", "Failed", 300)
    assert failed["reason"] == "DatasetInvalid"
    assert "2 of 10 lines are wrong" in failed["message"]
    assert "line 4" in failed["message"]
    assert "line 7" in failed["message"]
    jobs = [job for job in kubectl.items("jobs", namespace) if job["metadata"]["labels"][JOB_LABEL] == "bad-data"]
    assert [job["metadata"]["labels"][STAGE_LABEL] for job in jobs] == ["Prepare"]


def test_a_training_survives_a_killed_pod_a_killed_operator_and_a_suspension(
    kubectl: Kubectl, namespace: str, operator: str
) -> None:
    # A checkpoint at a step that 700 does not divide was saved for the suspension.
    values = {"epochs": 50, "learningRate": 0.001, "batchSize": 1, "maxLength": 64}
    compute = {"resources": {"cpu": "400m", "memory": "2Gi"}, "saveSteps": 700}
    kubectl.apply(
        finetunejob(
            "long",
            namespace,
            method={"sft": {"packing": False}},
            hyperparameters=values,
            compute=compute,
            retries=0,
        )
    )
    pod = wait_for_step(kubectl, namespace, "long", 700)["metadata"]["name"]
    kubectl.run("delete", "pod", "-n", namespace, pod, "--grace-period=0", "--force")
    _kill(kubectl, _leader(kubectl, operator))
    wait_for_step(kubectl, namespace, "long", 710)
    kubectl.run("patch", "ftj", "long", "-n", namespace, "--type=merge", "-p", '{"spec": {"suspend": true}}')
    kubectl.wait_for_condition(namespace, "long", "Suspended", 180)
    selector = f"{JOB_LABEL}=long,{STAGE_LABEL}=Train"
    assert not json.loads(kubectl.run("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))["items"]
    kubectl.run("patch", "ftj", "long", "-n", namespace, "--type=merge", "-p", '{"spec": {"suspend": false}}')
    kubectl.wait_for_condition(namespace, "long", "Ready", 600)
    status = kubectl.status(namespace, "long")
    assert 700 < status["training"]["resumedFromStep"] < 1400
    assert status["training"]["steps"] == status["progress"]["steps"] == 36 * 50
    assert status["attempts"] == {"prepare": 1, "train": 3, "evaluate": 1, "export": 0, "disruptions": 1}


def test_deletion_leaves_only_the_artifact(kubectl: Kubectl, namespace: str, loop: str) -> None:
    artifact = kubectl.status(namespace, loop)["artifact"]
    kubectl.run("delete", "ftj", "-n", namespace, loop)

    def remaining() -> list[str]:
        kinds = "jobs,pods,configmaps,modelservers,deployments,services"
        items = json.loads(kubectl.run("get", kinds, "-n", namespace, "-o", "json"))["items"]
        return [
            f"{item['kind']}/{item['metadata']['name']}"
            for item in items
            if item["metadata"]["name"].startswith("price")
        ]

    wait_for(lambda: not remaining(), lambda: f"all children of price to be deleted: {remaining()}", 180)
    assert digest_directory(artifact_directory(kubectl, namespace, artifact["uri"])) == artifact["digest"]


def wait_for_step(kubectl: Kubectl, namespace: str, job: str, step: int) -> dict[str, Any]:
    """Wait until a training's pod reports a later step, without the delay of the status; return the pod."""
    selector = f"{JOB_LABEL}={job},{STAGE_LABEL}=Train"
    matching: list[dict[str, Any]] = []

    def has_passed_step() -> bool:
        pods = json.loads(kubectl.run("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))["items"]
        matching[:] = [pod for pod in pods if pod["status"]["phase"] == "Running" and read_step(pod) > step]
        return bool(matching)

    wait_for(has_passed_step, lambda: f"step {step}: {kubectl.explain(namespace, job)}", 300)
    return matching[0]


def read_step(pod: dict[str, Any]) -> int:
    """Return the last step of a training's pod; -1 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:{METRICS_PORT}/metrics", timeout=2) as response:
            progress = parse_progress(response.read().decode())
    except OSError:
        return -1
    return progress.step if progress else -1


def _leader(kubectl: Kubectl, operator: str) -> dict[str, Any]:
    """Return the pod of the leading operator."""
    lease = kubectl.get("lease", operator, "finetune-operator")
    assert lease is not None
    pod = kubectl.get("pod", operator, lease["spec"]["holderIdentity"])
    assert pod is not None, lease
    return pod


def _kill(kubectl: Kubectl, pod: dict[str, Any]) -> None:
    """Kill the pod's container with SIGKILL, and wait until it runs again."""
    from cluster.containerd import run_ctr

    before = pod["status"]["containerStatuses"][0]
    run_ctr("tasks", "kill", "--signal", "SIGKILL", before["containerID"].removeprefix("containerd://"))
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]

    def restarted() -> bool:
        now = kubectl.get("pod", namespace, name)
        assert now is not None
        status = now["status"]["containerStatuses"][0]
        return bool(status["restartCount"] > before["restartCount"] and status["ready"])

    wait_for(restarted, "the operator's container to restart", 60)
