"""Plays the pods where there is no node: says of each what a kubelet would, as a test's script wants it.

Jobs, Deployments and garbage collection are Kubernetes' own controllers; only pods are played.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cluster.control_plane import Cluster
from cluster.layout import ClusterError
from finetune_api.meta import METRICS_PORT, SERVER_PORT
from finetune_api.routes import LOADED_PATH

DIGEST = "sha256:" + "a" * 64
_DATASET = {
    "trainExamples": 9,
    "heldoutExamples": 1,
    "trainTokens": 90,
    "longestExampleTokens": 10,
    "steps": 5,
    "digest": DIGEST,
}
_PARTS = ("total", "weights", "gradients", "optimizer", "activations", "logits", "overhead")
_ESTIMATE = {
    "trainedTokens": 270,
    "steps": 5,
    "parameters": 1000,
    "trainableParameters": 10,
    "memory": dict.fromkeys(_PARTS, "2048Mi"),
    "hours": 3.2,
    "gpuHours": 3.2,
    "cost": 9.6,
    "currency": "USD",
}
_GAIN = {"metric": "Perplexity", "base": 9.0, "tuned": 3.0, "gain": 0.66, "gainLow": 0.6, "gainHigh": 0.7}
_GAIN["verdict"] = "Improved"
_EVALUATION = {
    "examples": 1,
    "passed": True,
    "metrics": [_GAIN],
    "gates": [{"metric": "Perplexity", "passed": True, "message": "passed"}],
}
Script = Callable[[dict[str, Any]], "tuple[int, str] | None"]
"""Given a pod: exit code and termination message, or None to let it run on."""


def succeed(pod: dict[str, Any]) -> tuple[int, str]:
    """Play a stage that succeeds."""
    labels = pod["metadata"]["labels"]
    job, attempt = labels["finetune.dev/job"], labels["finetune.dev/attempt"]
    report: dict[str, Any] = {"outcome": "Succeeded", "reason": "Succeeded"}
    match labels["finetune.dev/stage"]:
        case "Prepare":
            report["dataset"] = _DATASET
            report["estimate"] = _ESTIMATE
        case "Train":
            report["training"] = {"steps": 5, "loss": 1.0, "seconds": 2.0}
            report["artifact"] = {
                "uri": f"pvc://finetune-artifacts/{job}/adapter/{attempt}",
                "digest": DIGEST,
                "bytes": 1,
            }
        case "Evaluate":
            report["evaluation"] = _EVALUATION
    return 0, json.dumps(report)


class Player:
    """Looks at all pods again and again, and plays each that is not ended."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._scripts: dict[str, Script] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._servers = [_PodServer(("127.0.0.1", port), _Answers) for port in (METRICS_PORT, SERVER_PORT)]
        for server in self._servers:
            server.daemon_threads = True

    def play(self, namespace: str, script: Script) -> None:
        """Follow a script in a namespace; without one every stage succeeds."""
        self._scripts[namespace] = script

    def load(self, model_name: str, job: str) -> None:
        """Let servers say that they have loaded the result of a job, as they do of the job `job` as `bot`."""
        for server in self._servers:
            server.models.append(_loaded(model_name, job))

    def __enter__(self) -> Self:
        self._thread.start()
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            ours = "app.kubernetes.io/managed-by=finetune-operator"
            pods = json.loads(self._cluster.run_kubectl("get", "pods", "-A", "-l", ours, "-o", "json"))["items"]
            for pod in pods:
                if pod["status"].get("phase") in ("Pending", "Running") and not self._is_done(pod):
                    self._play(pod)

    def _is_done(self, pod: dict[str, Any]) -> bool:
        return "deletionTimestamp" in pod["metadata"] or (
            "finetune.dev/server" in pod["metadata"]["labels"] and pod["status"]["phase"] == "Running"
        )

    def _play(self, pod: dict[str, Any]) -> None:
        name = pod["spec"]["containers"][0]["name"]
        running = {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
        state: dict[str, Any] = {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}}
        if "finetune.dev/stage" in pod["metadata"]["labels"]:
            end = self._scripts.get(pod["metadata"]["namespace"], succeed)(pod)
            if end is not None:
                code, message = end
                now = pod["metadata"]["creationTimestamp"]
                state = {"terminated": {"exitCode": code, "message": message, "startedAt": now, "finishedAt": now}}
                running["phase"] = "Failed" if code else "Succeeded"
            elif pod["status"]["phase"] == "Running":
                return
        container = {"name": name, "image": "x", "imageID": "x", "ready": True, "restartCount": 0, "state": state}
        patch = {"status": running | {"containerStatuses": [container]}}
        arguments = ("patch", "pod", "-n", pod["metadata"]["namespace"], pod["metadata"]["name"])
        try:
            self._cluster.run_kubectl(*arguments, "--subresource=status", "--type=merge", "-p", json.dumps(patch))
        except ClusterError:
            if not self._stop.is_set():
                return


def _loaded(model_name: str, job: str) -> dict[str, str]:
    return {"modelName": model_name, "job": job, "digest": DIGEST, "state": "Loaded"}


class _PodServer(ThreadingHTTPServer):
    """A port of every pod."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.models = [_loaded("bot", "job")]


class _Answers(BaseHTTPRequestHandler):
    """What pods answer: a trainer's metrics, a server's loaded adapters."""

    server: _PodServer

    def do_GET(self) -> None:
        if self.path == LOADED_PATH:
            body = json.dumps({"models": self.server.models})
        else:
            body = "finetune_train_step 2\nfinetune_train_steps 5\nfinetune_train_loss 1.5\n"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""
