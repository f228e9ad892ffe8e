"""Many tuned models on one base: names, versions, rollouts, a pod that dies, an operator that is away."""

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
from cluster.containerd import run_ctr
from e2e.begun import build_greeting
from e2e.installation import artifact_directory
from e2e.jobs import modelserver
from e2e.kubectl import Kubectl
from e2e.proving import is_held, prove
from finetune_api.artifact import describe_artifact
from finetune_api.meta import SERVER_LABEL
from finetune_serving.gateway.hosting import position_of
from openai import APIConnectionError, InternalServerError, NotFoundError, OpenAI
from safetensors.torch import load_file, save_file
from torch import Tensor
from waiting import wait_for

SERVER = "shared"
WEIGHTS = "adapter_model.safetensors"
NAMES = ("red", "green", "blue")
CANARY = {"canary": {"steps": [{"weight": 10, "seconds": 10}, {"weight": 50, "seconds": 5}]}}
FAILING = {"canary": {"steps": [{"weight": 50, "seconds": 3600}], "minRequests": 5}}


class Proven(NamedTuple):
    """A result without a training: its public name, what becomes of the weights that it is made of, its rollout."""

    name: str
    change: Callable[[Tensor], Tensor]
    rollout: Any = None


def weaken(tensor: Tensor) -> Tensor:
    """Return other weights that say the same."""
    return tensor * 0.99


def overflow(tensor: Tensor) -> Tensor:
    """Return weights that are finite alone and not when they are multiplied: such likelihoods are not JSON."""
    return tensor.sign() * 1e30


PROVEN = {
    "green": Proven("green", lambda tensor: tensor * 0.9),
    "blue": Proven("blue", lambda tensor: tensor * 0.8),
    "bad": Proven("bad", weaken),
    "blue-2": Proven("blue", overflow, FAILING),
    "green-2": Proven("green", weaken),
}


def manifest(namespace: str, **spec: Any) -> dict[str, Any]:
    """Return the server that all jobs of this file share."""
    return modelserver(SERVER, namespace, **({"lora": {"maxRank": 8, "maxAdapters": 4}} | spec))


@pytest.fixture(scope="module")
def server(kubectl: Kubectl, namespace: str) -> Iterator[str]:
    """A server that hosts three tuned models: one was trained, the others are made of it."""
    kubectl.apply(manifest(namespace), *build_greeting(namespace, "red", "red", "apples", SERVER))
    for job, (name, _, canary) in PROVEN.items():
        held = {"budget": {"approval": "Manual"}}
        kubectl.apply(*build_greeting(namespace, job, name, "nothing", SERVER, canary, **held))
    kubectl.wait_for_condition(namespace, "red", "Ready", 900)
    for name in ("green", "blue"):
        serve_proven(kubectl, namespace, name, like="red")
        kubectl.wait_for_condition(namespace, name, "Ready", 120)
    yield SERVER
    kubectl.run("delete", "ftj", "--all", "-n", namespace)
    kubectl.run("delete", "modelserver", SERVER, "-n", namespace)


@pytest.fixture
def openai(kubectl: Kubectl, namespace: str, server: str) -> Iterator[OpenAI]:
    """A client of the server that tries nothing twice."""
    service = kubectl.get("service", namespace, SERVER)
    assert service
    with OpenAI(base_url=f"http://{service['spec']['clusterIP']}/v1", api_key="none", max_retries=0) as client:
        yield client


def serve_proven(kubectl: Kubectl, namespace: str, job: str, like: str) -> None:
    """Let a job that waits for its approval have a result without a training: another's with changed weights."""
    wait_for(lambda: is_held(kubectl, namespace, job), lambda: kubectl.explain(namespace, job), 300)
    change = PROVEN[job].change
    uri = kubectl.status(namespace, like)["artifact"]["uri"]
    proven = artifact_directory(kubectl, namespace, uri)
    copy = proven.parent / job
    shutil.copytree(proven, copy)
    save_file({key: change(tensor) for key, tensor in load_file(copy / WEIGHTS).items()}, copy / WEIGHTS)
    (copy / WEIGHTS).chmod(0o644)
    prove(kubectl, namespace, job, describe_artifact(copy, f"{uri.rpartition('/')[0]}/{job}"))


def ask(openai: OpenAI, model: str, messages: Any = None, **options: Any) -> str:
    messages = messages or [{"role": "user", "content": "visitor 7 comes in"}]
    answer = openai.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=16, **options)
    assert answer.model == model
    return str(answer.choices[0].message.content)


def judge(openai: OpenAI, model: str) -> float:
    """Return the log-likelihood of a model's answer by itself: it tells models apart that say the same."""
    answer = openai.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "visitor 7 comes in"}],
        temperature=0,
        max_tokens=16,
        logprobs=True,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    return sum(token.logprob for token in logprobs.content)


def version_of(openai: OpenAI, model: str, **options: Any) -> str:
    """Return the job whose result answers a request."""
    answer = openai.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=1, **options
    )
    return str(answer.headers["x-finetune-version"])


def rollout(kubectl: Kubectl, namespace: str, name: str) -> dict[str, Any]:
    found = kubectl.get("modelserver", namespace, SERVER)
    assert found
    return next((dict(one) for one in found["status"].get("rollouts", []) if one["name"] == name), {})


def test_three_names_answer_each_in_its_way(kubectl: Kubectl, namespace: str, openai: OpenAI) -> None:
    assert sorted(model.id for model in openai.models.list()) == sorted(["base", *NAMES])
    check_samples(kubectl, namespace, openai, "red")
    for name, other in pairwise(sorted(judge(openai, name) for name in NAMES)):
        assert other - name > 0.01


def check_samples(kubectl: Kubectl, namespace: str, openai: OpenAI, job: str, model: str = "") -> None:
    """A result answers as it did in its evaluation."""
    artifact = artifact_directory(kubectl, namespace, kubectl.status(namespace, job)["artifact"]["uri"])
    report = json.loads((artifact.parents[1] / "report" / "evaluate.json").read_text())
    asked = [one for one in report["samples"] if one["tuned"]]
    assert asked
    for sample in asked:
        assert ask(openai, model or job, sample["question"]).strip() == sample["tuned"]


def test_a_server_that_dies_comes_back_with_the_same_models_but_for_a_corrupt_one(
    kubectl: Kubectl, namespace: str, operator: str, openai: OpenAI
) -> None:
    serve_proven(kubectl, namespace, "bad", like="red")
    kubectl.wait_for_condition(namespace, "bad", "Served", 60)
    before = {name: judge(openai, name) for name in (*NAMES, "bad")}
    with no_operator(kubectl, operator):
        kill_container(kubectl, namespace)
        wait_for(lambda: is_reached(kubectl, namespace, openai), "the server to be ready again", 300)
        assert {name: judge(openai, name) for name in before} == pytest.approx(before, abs=1e-3)
        corrupt(artifact_directory(kubectl, namespace, kubectl.status(namespace, "bad")["artifact"]["uri"]))
        kubectl.run("delete", "pod", "-n", namespace, pod_of(kubectl, namespace)["metadata"]["name"])
        wait_for(lambda: is_reached(kubectl, namespace, openai), "another pod to be ready", 300)
        assert [judge(openai, name) for name in NAMES] == pytest.approx([before[name] for name in NAMES], abs=1e-3)
        with pytest.raises(Exception, match="not loaded yet"):
            ask(openai, "bad")
    wait_for(
        lambda: kubectl.condition(namespace, "bad", "Served").get("reason") == "AdapterRefused",
        lambda: kubectl.explain(namespace, "bad"),
        120,
    )
    kubectl.run("delete", "ftj", "bad", "-n", namespace)
    wait_for(lambda: is_unknown(openai, "bad"), "the name to go", 60)


def test_a_canary_grows_with_its_users_and_a_pin_turns_back(kubectl: Kubectl, namespace: str, openai: OpenAI) -> None:
    kubectl.apply(*build_greeting(namespace, "red-2", "red", "figs", SERVER, CANARY))
    wait_for(
        lambda: rollout(kubectl, namespace, "red").get("stepTime") is not None,
        lambda: kubectl.explain(namespace, "red-2"),
        600,
    )
    users = [f"user {number}" for number in range(40)]
    first = [user for user in users if position_of("red", user) < 10]
    assert first
    wait_for(lambda: {version_of(openai, "red", user=user) for user in first} == {"red-2"}, "the canary", 60)
    assert kubectl.status(namespace, "red-2")["evaluationServer"] == {"name": SERVER}
    kubectl.wait_for_condition(namespace, "red-2", "Ready", 120)
    assert {version_of(openai, "red", user=user) for user in users} == {"red-2"}
    assert version_of(openai, "red@red") == "red"
    check_samples(kubectl, namespace, openai, "red-2", "red")
    pin(kubectl, namespace, {"red": "red"})
    wait_for(lambda: version_of(openai, "red") == "red", "the version before", 30)
    pin(kubectl, namespace, {"red": None})
    wait_for(lambda: version_of(openai, "red") == "red-2", "the newest version", 30)


def test_a_canary_that_fails_is_taken_back(kubectl: Kubectl, namespace: str, openai: OpenAI) -> None:
    serve_proven(kubectl, namespace, "blue-2", like="blue")
    wait_for(
        lambda: rollout(kubectl, namespace, "blue").get("stepTime") is not None,
        lambda: kubectl.explain(namespace, "blue-2"),
        60,
    )

    assert kubectl.condition(namespace, "blue", "Served")["status"] == "True"

    def is_taken_back() -> bool:
        for number in range(20):
            with suppress(InternalServerError):
                version_of(openai, "blue", user=str(number), logprobs=True)
        return kubectl.condition(namespace, "blue-2", "Served").get("reason") == "RolloutAborted"

    wait_for(is_taken_back, lambda: kubectl.explain(namespace, "blue-2"), 120)
    assert "of the canary's" in kubectl.condition(namespace, "blue-2", "Served")["message"]
    users = [str(number) for number in range(20)]
    wait_for(lambda: {version_of(openai, "blue", user=user) for user in users} == {"blue"}, "the version before", 30)
    assert kubectl.condition(namespace, "blue", "Served")["status"] == "True"


def test_every_request_is_answered_while_versions_and_pods_change(
    kubectl: Kubectl, namespace: str, openai: OpenAI, pytestconfig: pytest.Config
) -> None:
    wanted = pytestconfig.getoption("--requests")
    serve_proven(kubectl, namespace, "green-2", like="green")
    kubectl.wait_for_condition(namespace, "green-2", "Served", 60)
    answers: list[Answer] = []
    turns = [Turn(0, 0, "green-2")]
    is_over = Event()

    def ask_on(client: int) -> None:
        for number in count():
            if is_over.is_set() and len(answers) >= wanted:
                return
            asked = monotonic()
            version = version_of(openai, "green", user=f"{client}-{number}")
            answers.append(Answer(asked, monotonic(), version))
            # Another pod needs a part of the cores to start.
            is_over.wait(0.6)

    def turn(pinned: str | None, version: str) -> None:
        begun = monotonic()
        pin(kubectl, namespace, {"green": pinned})
        wait_for(lambda: version_of(openai, "green") == version, version, 30)
        turns.append(Turn(begun, monotonic(), version))

    # So many that vLLM answers several in each of its steps, which take as long for one.
    with ThreadPoolExecutor(24) as pool:
        clients = [pool.submit(ask_on, client) for client in range(24)]
        try:
            turn("green", "green")
            turn(None, "green-2")
            turn("green", "green")
            pod = pod_of(kubectl, namespace)["metadata"]["name"]
            kubectl.run("rollout", "restart", f"deployment/{SERVER}", "-n", namespace)
            kubectl.run("rollout", "status", f"deployment/{SERVER}", "-n", namespace, "--timeout=600s")
            kubectl.run("wait", "--for=delete", f"pod/{pod}", "-n", namespace, "--timeout=120s")
        finally:
            is_over.set()
        for client in clients:
            client.result()
    assert len(answers) >= wanted
    assert [answer for answer in answers if answer.version not in current_versions(turns, answer)] == []


class Answer(NamedTuple):
    """A request: when it was sent and answered, and by which version."""

    asked: float
    answered: float
    version: str


class Turn(NamedTuple):
    """Another version for a name: when it was asked for, when the server was seen to follow, and the version."""

    begun: float
    followed: float
    version: str


def current_versions(turns: list[Turn], answer: Answer) -> set[str]:
    """Return the versions that the routes may have named while a request was answered."""
    ends = [*(turn.followed for turn in turns[1:]), inf]
    return {
        turn.version
        for turn, end in zip(turns, ends, strict=True)
        if turn.begun <= answer.answered and answer.asked <= end
    }


def is_unknown(openai: OpenAI, model: str) -> bool:
    """Tell whether the server says that there is no such model."""
    try:
        ask(openai, model)
    except NotFoundError:
        return True
    except InternalServerError:
        return False
    return False


@contextmanager
def no_operator(kubectl: Kubectl, operator: str) -> Iterator[None]:
    """Take the operators away for a while."""
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


def pod_of(kubectl: Kubectl, namespace: str) -> dict[str, Any]:
    """Return the server's newest pod."""
    found = json.loads(kubectl.run("get", "pods", "-n", namespace, "-l", f"{SERVER_LABEL}={SERVER}", "-o", "json"))
    return dict(max(found["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"])))


def kill_container(kubectl: Kubectl, namespace: str) -> None:
    """Kill the server's container with SIGKILL, and wait until the kubelet has seen it."""
    before = pod_of(kubectl, namespace)["status"]["containerStatuses"][0]
    run_ctr("tasks", "kill", "--signal", "SIGKILL", before["containerID"].removeprefix("containerd://"))
    wait_for(
        lambda: pod_of(kubectl, namespace)["status"]["containerStatuses"][0]["restartCount"] > before["restartCount"],
        "the container to be started again",
        60,
    )


def is_reached(kubectl: Kubectl, namespace: str, openai: OpenAI) -> bool:
    """Tell whether the newest pod is ready, and kube-proxy has heard of it: before, the Service refuses connections."""
    statuses = pod_of(kubectl, namespace)["status"].get("containerStatuses", [{}])
    if not statuses[0].get("ready"):
        return False
    try:
        openai.models.list()
    except APIConnectionError:
        return False
    return True


def pin(kubectl: Kubectl, namespace: str, pins: dict[str, str | None]) -> None:
    kubectl.run(
        "patch",
        "modelserver",
        SERVER,
        "-n",
        namespace,
        "--type=merge",
        "--patch",
        json.dumps({"spec": {"pins": pins}}),
    )
