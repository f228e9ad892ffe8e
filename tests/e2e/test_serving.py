"""Several tuned models on one base: names, versions, rollouts, a killed pod, a cluster without the operator."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count, pairwise
from math import inf
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, NamedTuple

import pytest
from e2e.evaluated_jobs import set_trained_and_evaluated, waits_for_approval
from e2e.installation import artifact_directory
from e2e.job_sets import build_greeting
from e2e.jobs import modelserver
from e2e.kubectl import Kubectl
from e2e.served_models import (
    SERVER,
    ask,
    is_reachable,
    is_unknown,
    kill_container,
    log_likelihood,
    pin,
    pod_of,
    rollout,
    version_of,
)
from finetune_api.artifact import describe_artifact
from finetune_serving.gateway.hosting import compute_percentile
from openai import InternalServerError, OpenAI
from safetensors.torch import load_file, save_file
from torch import Tensor
from waiting import wait_for

WEIGHTS = "adapter_model.safetensors"
NAMES = ("red", "green", "blue")
CANARY = {"canary": {"steps": [{"weight": 10, "seconds": 10}, {"weight": 50, "seconds": 5}]}}
FAILING = {"canary": {"steps": [{"weight": 50, "seconds": 3600}], "minRequests": 5}}


class DerivedModel(NamedTuple):
    """An artifact made from another without training: its public name, the change of the weights, its rollout."""

    name: str
    change: Callable[[Tensor], Tensor]
    rollout: Any = None


def weaken(tensor: Tensor) -> Tensor:
    """Return other weights that give the same answers."""
    return tensor * 0.99


def overflow(tensor: Tensor) -> Tensor:
    """Return finite weights whose products overflow: their log-likelihoods cannot be written as JSON."""
    return tensor.sign() * 1e30


DERIVED = {
    "green": DerivedModel("green", lambda tensor: tensor * 0.9),
    "blue": DerivedModel("blue", lambda tensor: tensor * 0.8),
    "bad": DerivedModel("bad", weaken),
    "blue-2": DerivedModel("blue", overflow, FAILING),
    "green-2": DerivedModel("green", weaken),
}


def manifest(namespace: str, **spec: Any) -> dict[str, Any]:
    """Return the ModelServer that all jobs of this file share."""
    return modelserver(SERVER, namespace, **({"lora": {"maxRank": 8, "maxAdapters": 4}} | spec))


@pytest.fixture(scope="module")
def server(kubectl: Kubectl, namespace: str) -> Iterator[str]:
    """A server with three tuned models: one is trained, the others are derived from it."""
    kubectl.apply(manifest(namespace), *build_greeting(namespace, "red", "red", "apples", SERVER))
    for job, (name, _, canary) in DERIVED.items():
        manual_approval = {"budget": {"approval": "Manual"}}
        kubectl.apply(*build_greeting(namespace, job, name, "nothing", SERVER, canary, **manual_approval))
    kubectl.wait_for_condition(namespace, "red", "Ready", 900)
    for name in ("green", "blue"):
        serve_derived(kubectl, namespace, name, like="red")
        kubectl.wait_for_condition(namespace, name, "Ready", 120)
    yield SERVER
    kubectl.run("delete", "ftj", "--all", "-n", namespace)
    kubectl.run("delete", "modelserver", SERVER, "-n", namespace)


@pytest.fixture
def openai(kubectl: Kubectl, namespace: str, server: str) -> Iterator[OpenAI]:
    """A client of the server without retries."""
    service = kubectl.get("service", namespace, SERVER)
    assert service
    with OpenAI(base_url=f"http://{service['spec']['clusterIP']}/v1", api_key="none", max_retries=0) as client:
        yield client


def serve_derived(kubectl: Kubectl, namespace: str, job: str, like: str) -> None:
    """Give a job that waits for approval an artifact: a copy of another job's with changed weights."""
    wait_for(lambda: waits_for_approval(kubectl, namespace, job), lambda: kubectl.explain(namespace, job), 300)
    change = DERIVED[job].change
    uri = kubectl.status(namespace, like)["artifact"]["uri"]
    source = artifact_directory(kubectl, namespace, uri)
    copy = source.parent / job
    shutil.copytree(source, copy)
    save_file({key: change(tensor) for key, tensor in load_file(copy / WEIGHTS).items()}, copy / WEIGHTS)
    (copy / WEIGHTS).chmod(0o644)
    set_trained_and_evaluated(kubectl, namespace, job, describe_artifact(copy, f"{uri.rpartition('/')[0]}/{job}"))


def test_three_names_answer_with_three_models(kubectl: Kubectl, namespace: str, openai: OpenAI) -> None:
    assert sorted(model.id for model in openai.models.list()) == sorted(["base", *NAMES])
    check_samples(kubectl, namespace, openai, "red")
    for name, other in pairwise(sorted(log_likelihood(openai, name) for name in NAMES)):
        assert other - name > 0.01


def check_samples(kubectl: Kubectl, namespace: str, openai: OpenAI, job: str, model: str = "") -> None:
    """Check that an adapter answers as it did in its evaluation."""
    artifact = artifact_directory(kubectl, namespace, kubectl.status(namespace, job)["artifact"]["uri"])
    report = json.loads((artifact.parents[1] / "report" / "evaluate.json").read_text())
    samples = [sample for sample in report["samples"] if sample["tuned"]]
    assert samples
    for sample in samples:
        assert ask(openai, model or job, sample["question"]).strip() == sample["tuned"]


def test_a_killed_server_restarts_with_the_same_models_except_a_corrupt_one(
    kubectl: Kubectl, namespace: str, operator: str, openai: OpenAI
) -> None:
    serve_derived(kubectl, namespace, "bad", like="red")
    kubectl.wait_for_condition(namespace, "bad", "Served", 60)
    before = {name: log_likelihood(openai, name) for name in (*NAMES, "bad")}
    with without_operator(kubectl, operator):
        kill_container(kubectl, namespace)
        wait_for(lambda: is_reachable(kubectl, namespace, openai), "the server to be ready again", 300)
        assert {name: log_likelihood(openai, name) for name in before} == pytest.approx(before, abs=1e-3)
        corrupt(artifact_directory(kubectl, namespace, kubectl.status(namespace, "bad")["artifact"]["uri"]))
        kubectl.run("delete", "pod", "-n", namespace, pod_of(kubectl, namespace)["metadata"]["name"])
        wait_for(lambda: is_reachable(kubectl, namespace, openai), "another pod to be ready", 300)
        assert [log_likelihood(openai, name) for name in NAMES] == pytest.approx(
            [before[name] for name in NAMES], abs=1e-3
        )
        with pytest.raises(Exception, match="not loaded yet"):
            ask(openai, "bad")
    wait_for(
        lambda: kubectl.condition(namespace, "bad", "Served").get("reason") == "AdapterRefused",
        lambda: kubectl.explain(namespace, "bad"),
        120,
    )
    kubectl.run("delete", "ftj", "bad", "-n", namespace)
    wait_for(lambda: is_unknown(openai, "bad"), "the name to be removed", 60)


def test_a_canary_keeps_its_users_and_a_pin_rolls_back(kubectl: Kubectl, namespace: str, openai: OpenAI) -> None:
    kubectl.apply(*build_greeting(namespace, "red-2", "red", "figs", SERVER, CANARY))
    wait_for(
        lambda: rollout(kubectl, namespace, "red").get("stepTime") is not None,
        lambda: kubectl.explain(namespace, "red-2"),
        600,
    )
    users = [f"user {number}" for number in range(40)]
    first = [user for user in users if compute_percentile("red", user) < 10]
    assert first
    wait_for(lambda: {version_of(openai, "red", user=user) for user in first} == {"red-2"}, "the canary", 60)
    assert kubectl.status(namespace, "red-2")["evaluationServer"] == {"name": SERVER}
    kubectl.wait_for_condition(namespace, "red-2", "Ready", 120)
    assert {version_of(openai, "red", user=user) for user in users} == {"red-2"}
    assert version_of(openai, "red@red") == "red"
    check_samples(kubectl, namespace, openai, "red-2", "red")
    pin(kubectl, namespace, {"red": "red"})
    wait_for(lambda: version_of(openai, "red") == "red", "the previous version", 30)
    pin(kubectl, namespace, {"red": None})
    wait_for(lambda: version_of(openai, "red") == "red-2", "the newest version", 30)


def test_a_failing_canary_is_rolled_back(kubectl: Kubectl, namespace: str, openai: OpenAI) -> None:
    serve_derived(kubectl, namespace, "blue-2", like="blue")
    wait_for(
        lambda: rollout(kubectl, namespace, "blue").get("stepTime") is not None,
        lambda: kubectl.explain(namespace, "blue-2"),
        60,
    )

    assert kubectl.condition(namespace, "blue", "Served")["status"] == "True"

    def is_rolled_back() -> bool:
        for number in range(20):
            with suppress(InternalServerError):
                version_of(openai, "blue", user=str(number), logprobs=True)
        return kubectl.condition(namespace, "blue-2", "Served").get("reason") == "RolloutAborted"

    wait_for(is_rolled_back, lambda: kubectl.explain(namespace, "blue-2"), 120)
    assert "of the canary's" in kubectl.condition(namespace, "blue-2", "Served")["message"]
    users = [str(number) for number in range(20)]
    wait_for(lambda: {version_of(openai, "blue", user=user) for user in users} == {"blue"}, "the previous version", 30)
    assert kubectl.condition(namespace, "blue", "Served")["status"] == "True"


def test_every_request_is_answered_while_versions_and_pods_change(
    kubectl: Kubectl, namespace: str, openai: OpenAI, pytestconfig: pytest.Config
) -> None:
    minimum = pytestconfig.getoption("--requests")
    serve_derived(kubectl, namespace, "green-2", like="green")
    kubectl.wait_for_condition(namespace, "green-2", "Served", 60)
    answers: list[Answer] = []
    switches = [Switch(0, 0, "green-2")]
    is_over = Event()

    def send_requests(client: int) -> None:
        for number in count():
            if is_over.is_set() and len(answers) >= minimum:
                return
            sent = monotonic()
            version = version_of(openai, "green", user=f"{client}-{number}")
            answers.append(Answer(sent, monotonic(), version))
            # Leave CPU for another pod to start.
            is_over.wait(0.6)

    def switch(pinned: str | None, version: str) -> None:
        started = monotonic()
        pin(kubectl, namespace, {"green": pinned})
        wait_for(lambda: version_of(openai, "green") == version, version, 30)
        switches.append(Switch(started, monotonic(), version))

    # Enough clients that vLLM batches several requests in a step, which takes as long as for one.
    with ThreadPoolExecutor(24) as pool:
        clients = [pool.submit(send_requests, client) for client in range(24)]
        try:
            switch("green", "green")
            switch(None, "green-2")
            switch("green", "green")
            pod = pod_of(kubectl, namespace)["metadata"]["name"]
            kubectl.run("rollout", "restart", f"deployment/{SERVER}", "-n", namespace)
            kubectl.run("rollout", "status", f"deployment/{SERVER}", "-n", namespace, "--timeout=600s")
            kubectl.run("wait", "--for=delete", f"pod/{pod}", "-n", namespace, "--timeout=120s")
        finally:
            is_over.set()
        for client in clients:
            client.result()
    assert len(answers) >= minimum
    assert [answer for answer in answers if answer.version not in current_versions(switches, answer)] == []


class Answer(NamedTuple):
    """A request: when it was sent and answered, and the version that answered."""

    sent: float
    answered: float
    version: str


class Switch(NamedTuple):
    """A change of a name's version: when it was requested, when the server followed, and the version."""

    started: float
    followed: float
    version: str


def current_versions(switches: list[Switch], answer: Answer) -> set[str]:
    """Return the versions that the routes may have named during a request."""
    ends = [*(switch.followed for switch in switches[1:]), inf]
    return {
        switch.version
        for switch, end in zip(switches, ends, strict=True)
        if switch.started <= answer.answered and answer.sent <= end
    }


@contextmanager
def without_operator(kubectl: Kubectl, operator: str) -> Iterator[None]:
    """Scale the operators to zero while the body runs."""
    kubectl.run("scale", "deployment/finetune-operator", "-n", operator, "--replicas=0")
    wait_for(lambda: not kubectl.items("pods", operator), "the operators' end")
    try:
        yield
    finally:
        kubectl.run("scale", "deployment/finetune-operator", "-n", operator, "--replicas=2")
        kubectl.run("rollout", "status", "deployment/finetune-operator", "-n", operator, "--timeout=120s")


def corrupt(adapter: Path) -> None:
    """Change one byte of an adapter's weights on the volume."""
    path = adapter / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    partial = adapter.parent / "changed"
    partial.write_bytes(content)
    shutil.move(partial, path)
