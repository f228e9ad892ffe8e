"""Runs the example from installation to a served model: `make demo`.

Starts the embedded Kubernetes, or uses the current context with `CLUSTER=current REGISTRY=<registry>`; installs the
operator, creates the base model, applies the FineTuneJob, and sends base and tuned model the same question.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from cluster.images import build_chart_values, build_image_annotation, build_images, push_images
from cluster.layout import BIN, ClusterError, log_progress
from cluster.lifecycle import up
from cluster.packages import install_kubernetes
from cluster.storage import create_kept_volume
from finetune_api.references import BASE_NAME
from openai import OpenAI

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "charts/finetune-operator"
NAMESPACE, SYSTEM_NAMESPACE, JOB = "demo", "finetune-system", "support-bot"
QUESTION = "I changed my mind about the kettle, can I send it back?"
ORDER_QUESTION = "Where is order N1025?"
ORDERS = {"N1025": "shipped"}
"""The shop's own system, which the model asks with a tool."""
_MAX_CALLS = 3
PORT = 18000
_JOB_TIMEOUT = 1500
"""Seconds until the FineTuneJob must be ready or have failed."""


@dataclass(frozen=True)
class Target:
    """The cluster of the demo: the commands that reach it, and the images to install."""

    kubectl: tuple[str, ...]
    helm: tuple[str, ...]
    values: dict[str, Any]
    """Values of the chart, with the images."""
    model_volume: str
    """Name of the volume that keeps the base model; empty in a cluster of the user's own."""

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output.

        Raises:
            ClusterError: kubectl failed; the message contains its standard error.
        """
        return _run([*self.kubectl, *arguments], stdin)

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply objects to the demo's namespace."""
        self.run("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))


def main() -> int:
    """Run the demo; return its exit status."""
    try:
        target = _choose_target()
        _install(target)
        _make_base_model(target)
        job = _follow_job(target)
        _show_evaluation(target, job["status"])
        if not _is_true(job, "Ready"):
            conditions = job["status"]["conditions"]
            failed = next(condition for condition in conditions if condition["type"] == "Failed")
            sys.stderr.write(f"{JOB} failed: {failed['reason']}: {failed['message']}\n")
            return 1
        _show_answers(target, job["status"]["serving"])
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _choose_target() -> Target:
    if os.environ.get("CLUSTER") != "current":
        cluster = up(images=True)
        create_kept_volume(cluster, "helpdesk-base")
        config = f"--kubeconfig={cluster.kubeconfig}"
        values = build_chart_values(None) | {"podAnnotations": build_image_annotation()}
        return Target((str(cluster.kubectl), config), (str(cluster.helm), config), values, "helpdesk-base")
    registry = os.environ.get("REGISTRY", "")
    if not registry:
        raise ClusterError("CLUSTER=current needs REGISTRY=<registry/path>, from which the cluster can pull images")
    if shutil.which("kubectl") is None:
        raise ClusterError("CLUSTER=current needs kubectl with a current context")
    if shutil.which("helm") is None:
        install_kubernetes()
    build_images()
    push_images(registry)
    return Target(("kubectl",), (shutil.which("helm") or str(BIN / "helm"),), build_chart_values(registry), "")


def _install(target: Target) -> None:
    log_progress("installing the operator with Helm")
    command = [*target.helm, "upgrade", "--install", "finetune-operator", str(CHART), "--create-namespace"]
    command += [f"--namespace={SYSTEM_NAMESPACE}", "--values=-", "--wait", "--timeout=5m"]
    _run(command, json.dumps(target.values))


def _make_base_model(target: Target) -> None:
    """Create the base model in a pod, unless its claim already has it."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    claim: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    if target.model_volume:
        claim |= {"volumeName": target.model_volume, "storageClassName": f"kept-{target.model_volume}"}
    target.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    target.run("delete", f"-n={NAMESPACE}", "job/make-base-model", f"finetunejob/{JOB}", "--ignore-not-found")
    target.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": NAMESPACE},
            "spec": claim,
        },
        _config_map("make-base-model", HERE / "make_base_model.py"),
        _config_map("support-bot-data", HERE / "train.jsonl", HERE / "heldout.jsonl"),
    )
    log_progress("creating the base model (about 4 minutes, once)")
    image = target.values["trainer"]["image"]
    manifest = Template((HERE / "base-model.yaml").read_text()).substitute(
        TRAINER_IMAGE=f"{image['repository']}:{image['tag']}"
    )
    target.run("apply", f"-n={NAMESPACE}", "-f", "-", stdin=manifest)
    logs = [*target.kubectl, "logs", f"-n={NAMESPACE}", "--follow", "--pod-running-timeout=300s", "job/make-base-model"]
    with subprocess.Popen(logs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout or ():
            log_progress(f"  {line.rstrip()}")
    target.run("wait", f"-n={NAMESPACE}", "--for=condition=Complete", "--timeout=900s", "job/make-base-model")


def _follow_job(target: Target) -> dict[str, Any]:
    """Apply the FineTuneJob and print its row whenever it changes; return the job once it is ready or has failed."""
    target.run("apply", f"-n={NAMESPACE}", "-f", str(HERE / "finetunejob.yaml"))
    print(f"\n$ kubectl apply -f examples/support-bot/finetunejob.yaml\n$ kubectl get finetunejob {JOB} --watch")
    command = [
        *target.kubectl,
        "get",
        f"-n={NAMESPACE}",
        "finetunejob",
        JOB,
        "--watch",
        f"--request-timeout={_JOB_TIMEOUT}s",
    ]
    printed = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watch:
        for line in watch.stdout or ():
            row, _, _ = line.rstrip().rpartition(" ")
            if row == printed:
                continue
            printed = row
            print(line, end="", flush=True)
            job = json.loads(target.run("get", f"-n={NAMESPACE}", "finetunejob", JOB, "-o=json"))
            if _is_true(job, "Ready") or _is_true(job, "Failed"):
                watch.terminate()
                return dict(job)
    raise ClusterError(f"{JOB} is not ready after {_JOB_TIMEOUT} s; check: kubectl describe -n {NAMESPACE} ftj {JOB}")


def _show_evaluation(target: Target, status: dict[str, Any]) -> None:
    print(f"\n$ kubectl get finetunejob {JOB} -o wide")
    print(target.run("get", f"-n={NAMESPACE}", "finetunejob", JOB, "-o=wide"))
    evaluation = status.get("evaluation")
    if not evaluation:
        return
    print(f"Evaluation on {evaluation['examples']} held-out conversations (gain with its 95 % interval)")
    print(f"{'metric':12} {'base':>9} {'tuned':>9} {'gain':>9}   {'interval':16} verdict")
    for metric in evaluation["metrics"]:
        interval = f"[{metric['gainLow']:.3f}, {metric['gainHigh']:.3f}]"
        figures = f"{metric['base']:9.3f} {metric['tuned']:9.3f} {metric['gain']:9.3f}"
        print(f"{metric['metric']:12} {figures}   {interval:16} {metric['verdict']}")
    for gate in evaluation["gates"]:
        print(f"gate: {gate['message']}")


def _show_answers(target: Target, serving: dict[str, Any]) -> None:
    name, server = serving["modelName"], serving["server"]
    with _forward(target, server) as url:
        client = OpenAI(base_url=url, api_key="none")
        print(f"\nQuestion: {QUESTION}")
        for model in (BASE_NAME, name):
            print(f"{model:20} {_ask(client, model)}")
        print(f"\nQuestion: {ORDER_QUESTION}")
        for line in call_tools(client, name):
            print(line)
    body = {"model": name, "messages": [{"role": "user", "content": "Where is my tent?"}], "temperature": 0}
    kubectl = " ".join(target.kubectl)
    print("\nTo continue the chat:")
    print(f"  {kubectl} port-forward -n {NAMESPACE} service/{server} {PORT}:80 &")
    print(f"  curl -s localhost:{PORT}/v1/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}'")


def _ask(client: OpenAI, model: str) -> str:
    answer = client.chat.completions.create(
        model=model,
        messages=[
            {"role": "system", "content": "You are the support assistant of Northlight."},
            {"role": "user", "content": QUESTION},
        ],
        max_tokens=64,
        temperature=0,
    )
    return answer.choices[0].message.content or ""


def call_tools(client: OpenAI, model: str) -> Iterator[str]:
    """Ask about an order, run the tools that the model calls, and yield each step as a line, the answer at the end.

    Raises:
        ClusterError: the model calls tools without end.
    """
    rows: Iterator[Any] = map(json.loads, (HERE / "train.jsonl").read_text().splitlines())
    example = next(row for row in rows if "tools" in row)
    messages: list[Any] = [example["messages"][0], {"role": "user", "content": ORDER_QUESTION}]
    for _ in range(_MAX_CALLS + 1):
        completion = client.chat.completions.create(
            model=model, messages=messages, tools=example["tools"], max_tokens=64, temperature=0
        )
        message = completion.choices[0].message
        if not message.tool_calls:
            yield f"{model:20} {message.content}"
            return
        messages.append(message)
        for call in message.tool_calls:
            if call.type != "function":
                raise TypeError(f"the model calls a tool of type {call.type}")
            yield f"{model:20} calls {call.function.name}({call.function.arguments})"
            state = ORDERS.get(json.loads(call.function.arguments)["order"], "unknown")
            result = json.dumps({"state": state})
            yield f"{call.function.name:20} returns {result}"
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise ClusterError(f"{model} calls a tool for the {_MAX_CALLS + 1}th time instead of answering {ORDER_QUESTION!r}")


@contextmanager
def _forward(target: Target, server: str) -> Iterator[str]:
    """Forward a local port to the server within the `with` block; yield the base URL of its API."""
    command = [*target.kubectl, "port-forward", f"-n={NAMESPACE}", f"service/{server}", f"{PORT}:80"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if process.stdout is None or "Forwarding" not in process.stdout.readline():
            raise ClusterError(f"{' '.join(command)} does not forward the port")
        yield f"http://127.0.0.1:{PORT}/v1"
    finally:
        process.terminate()
        process.wait()


def _is_true(job: dict[str, Any], kind: str) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)


def _config_map(name: str, *files: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {file.name: file.read_text() for file in files},
    }


def _run(command: list[str], stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
