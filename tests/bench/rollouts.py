"""Rollouts on a real node: seconds until a new adapter answers, and until a rollback to the previous one answers."""

import json
import statistics
import time
import urllib.request
from itertools import pairwise
from typing import Any

from cluster.lifecycle import down, up
from e2e.evaluated_jobs import set_trained_and_evaluated, waits_for_approval
from e2e.installation import install_operator, prepare_namespace
from e2e.jobs import finetunejob, modelserver
from e2e.kubectl import Kubectl
from finetune_api.artifact import describe_artifact
from serving.vllm_server import make_adapter
from waiting import wait_for

_VERSIONS = 21
_NAMESPACE = "bench"
_NAME = "bot"
_SERVER = "shared"


def measure_rollouts() -> dict[str, Any]:
    """Start a cluster, return the figures, and stop the cluster."""
    down()
    try:
        return _measure(Kubectl(up(images=True)))
    finally:
        down()


def _measure(kubectl: Kubectl) -> dict[str, Any]:
    install_operator(kubectl)
    models = prepare_namespace(kubectl, _NAMESPACE)
    names = [f"{_NAME}-{number}" for number in range(_VERSIONS)]
    kubectl.apply(_server(), *(_job(name) for name in names))
    artifacts = {}
    for number, name in enumerate(names):
        directory = models / name
        make_adapter(models / "tiny", directory, number)
        for path in (directory, *directory.iterdir()):
            path.chmod(0o755)
        artifacts[name] = describe_artifact(directory, f"pvc://models/{name}")
    for name in names:
        _wait_until_held(kubectl, name)
    url = _url(kubectl)
    wait_for(lambda: _answers(f"{url}/readyz"), lambda: _explain(kubectl, names[0]), 600)
    set_trained_and_evaluated(kubectl, _NAMESPACE, names[0], artifacts[names[0]])
    _seconds_until(url, names[0])
    loads, rollbacks = [], []
    for previous, name in pairwise(names):
        set_trained_and_evaluated(kubectl, _NAMESPACE, name, artifacts[name])
        loads.append(_seconds_until(url, name))
        _pin(kubectl, previous)
        rollbacks.append(_seconds_until(url, previous))
        _pin(kubectl, None)
        _seconds_until(url, name)
    return {
        "hot_load_p95_s": _p95(loads),
        "hot_load_p50_s": round(statistics.median(loads), 2),
        "rollback_p95_s": _p95(rollbacks),
        "rollback_p50_s": round(statistics.median(rollbacks), 2),
        "rollouts": len(loads),
    }


def _server() -> dict[str, Any]:
    return modelserver(_SERVER, _NAMESPACE, lora={"maxRank": 8, "maxAdapters": 1})


def _job(name: str) -> dict[str, Any]:
    """Return a job that waits for approval after its data checks; the benchmark itself writes its adapter."""
    serving = {"modelName": _NAME, "server": _SERVER}
    return finetunejob(
        name, _NAMESPACE, budget={"approval": "Manual"}, serving=serving, output={"uri": "pvc://models/out"}
    )


def _url(kubectl: Kubectl) -> str:
    wait_for(lambda: kubectl.get("service", _NAMESPACE, _SERVER) is not None, "the server's address")
    service = kubectl.get("service", _NAMESPACE, _SERVER)
    return f"http://{service['spec']['clusterIP']}" if service else ""


def _version(url: str) -> str:
    """Return the job whose adapter answers a request; empty if none does yet."""
    body = json.dumps({"model": _NAME, "prompt": "hello", "max_tokens": 1}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return str(response.headers["x-finetune-version"])
    except OSError:
        return ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _pin(kubectl: Kubectl, job: str | None) -> None:
    patch = json.dumps({"spec": {"pins": {_NAME: job}}})
    kubectl.run("patch", "modelserver", _SERVER, "-n", _NAMESPACE, "--type=merge", "--patch", patch)


def _seconds_until(url: str, job: str) -> float:
    """Return the seconds until a job's adapter answers; poll every 20 ms for a precise time."""
    started = time.perf_counter()
    while _version(url) != job:
        if time.perf_counter() - started > 60:
            raise SystemExit(f"the adapter of {job} did not answer within 60 s")
        time.sleep(0.02)
    return time.perf_counter() - started


def _wait_until_held(kubectl: Kubectl, job: str) -> None:
    wait_for(lambda: waits_for_approval(kubectl, _NAMESPACE, job), lambda: _explain(kubectl, job), 900)


def _explain(kubectl: Kubectl, job: str) -> str:
    return kubectl.explain(_NAMESPACE, job)


def _p95(seconds: list[float]) -> float:
    return round(statistics.quantiles(seconds, n=20, method="inclusive")[18], 2)
