"""What the tests of serving ask a shared server, and do to it."""

import json
from typing import Any

from cluster.containerd import run_ctr
from e2e.kubectl import Kubectl
from finetune_api.meta import SERVER_LABEL
from openai import APIConnectionError, InternalServerError, NotFoundError, OpenAI
from waiting import wait_for

SERVER = "shared"


def ask(openai: OpenAI, model: str, messages: Any = None, **options: Any) -> str:
    messages = messages or [{"role": "user", "content": "visitor 7 comes in"}]
    answer = openai.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=16, **options)
    assert answer.model == model
    return str(answer.choices[0].message.content)


def log_likelihood(openai: OpenAI, model: str) -> float:
    """Return the log-likelihood that a model gives its own answer: it differs between models with the same answer."""
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
    """Return the job whose adapter answers a request."""
    answer = openai.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=1, **options
    )
    return str(answer.headers["x-finetune-version"])


def rollout(kubectl: Kubectl, namespace: str, name: str) -> dict[str, Any]:
    """Return the rollout of a public name; empty where there is none."""
    server = kubectl.get("modelserver", namespace, SERVER)
    assert server
    return next((dict(entry) for entry in server["status"].get("rollouts", []) if entry["name"] == name), {})


def is_unknown(openai: OpenAI, model: str) -> bool:
    """Return whether the server answers that the model does not exist."""
    try:
        ask(openai, model)
    except NotFoundError:
        return True
    except InternalServerError:
        return False
    return False


def pod_of(kubectl: Kubectl, namespace: str) -> dict[str, Any]:
    """Return the server's newest pod."""
    pods = json.loads(kubectl.run("get", "pods", "-n", namespace, "-l", f"{SERVER_LABEL}={SERVER}", "-o", "json"))
    return dict(max(pods["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"])))


def kill_container(kubectl: Kubectl, namespace: str) -> None:
    """Kill the server's container with SIGKILL, and wait until the kubelet restarts it."""
    before = pod_of(kubectl, namespace)["status"]["containerStatuses"][0]
    run_ctr("tasks", "kill", "--signal", "SIGKILL", before["containerID"].removeprefix("containerd://"))
    wait_for(
        lambda: pod_of(kubectl, namespace)["status"]["containerStatuses"][0]["restartCount"] > before["restartCount"],
        "the container to restart",
        60,
    )


def is_reachable(kubectl: Kubectl, namespace: str, openai: OpenAI) -> bool:
    """Return whether the newest pod is ready and the Service accepts connections, which needs kube-proxy to update."""
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
