"""Simulates pods where there is no node: writes the status that a kubelet would write, as a test's script says.

Jobs, Deployments and garbage collection are Kubernetes' own controllers; only pods are simulated. Each pod
has an address on the loopback interface, where it answers as a trainer, or as a server that loaded its routes.
"""

import asyncio
import ipaddress
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from cluster.client import ApiError, Client, connect
from cluster.control_plane import Cluster
from finetune_api.contract.mounts import ROUTES_FILE
from finetune_api.contract.routes import LOADED_PATH
from finetune_api.digest import digest_value
from finetune_api.meta import ATTEMPT_LABEL, JOB_LABEL, METRICS_PORT, SERVER_LABEL, SERVER_PORT, STAGE_LABEL

_DATASET = {
    "trainExamples": 9,
    "heldoutExamples": 1,
    "trainTokens": 90,
    "longestExampleTokens": 10,
    "steps": 5,
    "digest": "sha256:" + "a" * 64,
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
_PROGRESS = "finetune_train_step 2\nfinetune_train_steps 5\nfinetune_train_loss 1.5\n"
_FIRST_ADDRESS = ipaddress.ip_address("127.1.0.1")
_POLL_SECONDS = 0.1
_WATCH_ENDED = (0, 410)
"""Codes of a watch that ended without an error, and of one whose version is too old."""

Pod = dict[str, Any]
Script = Callable[[Pod], "tuple[int, str] | None"]
"""Takes a pod; returns its exit code and termination message, or None while it runs."""


def succeed(pod: Pod) -> tuple[int, str]:
    """Return the exit code and the report of a stage that succeeds."""
    labels = pod["metadata"]["labels"]
    job, attempt = labels[JOB_LABEL], labels[ATTEMPT_LABEL]
    report: dict[str, Any] = {"outcome": "Succeeded", "reason": "Succeeded"}
    match labels[STAGE_LABEL]:
        case "Prepare":
            report["dataset"] = _DATASET
            report["estimate"] = _ESTIMATE
        case "Train":
            report["training"] = {"steps": 5, "loss": 1.0, "seconds": 2.0}
            report["artifact"] = {
                "uri": f"pvc://finetune-artifacts/{job}/adapter/{attempt}",
                "digest": f"sha256:{digest_value(job)}",
                "bytes": 1,
            }
        case "Evaluate":
            report["evaluation"] = _EVALUATION
        case "Export":
            report["export"] = {"bucket": f"s3://bucket/{job}"}
    return 0, json.dumps(report)


def fail(reason: str, message: str, code: int) -> tuple[int, str]:
    """Return the exit code and the report of a stage that fails."""
    return code, json.dumps({"outcome": "Failed", "reason": reason, "message": message})


def fail_gates() -> tuple[int, str]:
    """Return the report of an evaluation in which the result is no better than the base model."""
    gate = {"metric": "Perplexity", "passed": False, "message": "no gain"}
    evaluation = _EVALUATION | {"passed": False, "gates": [gate]}
    return 0, json.dumps({"outcome": "Succeeded", "reason": "Succeeded", "evaluation": evaluation})


@dataclass
class Part:
    """How the pods of a namespace behave."""

    script: Script = succeed
    refused: dict[str, str] = field(default_factory=dict)
    """FineTuneJobs whose adapter the servers refuse: the message of each."""


class PodSimulator:
    """Watches all pods and simulates each that has not ended."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._parts: dict[str, Part] = {}
        self._pods: dict[str, Pod] = {}
        self._addresses: dict[str, str] = {}
        self._servers: dict[str, tuple[str, str]] = {}
        self._playing: set[str] = set()

    def play(self, namespace: str, part: Part) -> None:
        """Set how the pods of a namespace behave; by default every stage succeeds."""
        self._parts[namespace] = part

    async def run(self) -> None:
        """Simulate pods until cancelled."""
        async with self._serve_pods(), asyncio.TaskGroup() as plays:
            plays.create_task(self._poll_scripts(plays))
            while True:
                async with aclosing(self._client.watch("/api/v1/pods")) as watch:
                    await self._follow(watch, plays)

    async def _follow(self, watch: AsyncGenerator[tuple[str, Pod], None], plays: asyncio.TaskGroup) -> None:
        """Simulate the pods of a watch until it ends; the API server ends it when it cannot keep up."""
        try:
            async for kind, pod in watch:
                if kind == "DELETED" or _is_done(pod):
                    self._pods.pop(pod["metadata"]["uid"], None)
                else:
                    self._pods[pod["metadata"]["uid"]] = pod
                    self._start(plays, pod)
        except ApiError as error:
            if error.code not in _WATCH_ENDED:
                raise
            self._pods.clear()  # The next watch begins with all pods that exist.

    def _start(self, plays: asyncio.TaskGroup, pod: Pod) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._playing:
            self._playing.add(uid)
            plays.create_task(self._play(pod))

    async def _poll_scripts(self, plays: asyncio.TaskGroup) -> None:
        """Call the scripts repeatedly for the pods that still run."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            for pod in list(self._pods.values()):
                self._start(plays, pod)

    async def _play(self, pod: Pod) -> None:
        metadata = pod["metadata"]
        try:
            status = await self._next_status(pod)
            if status is not None:
                path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
                self._pods.pop(metadata["uid"], None)
                await self._client.patch(f"{path}/status", {"status": status})
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            self._pods.pop(metadata["uid"], None)
        finally:
            self._playing.discard(metadata["uid"])

    async def _next_status(self, pod: Pod) -> dict[str, Any] | None:
        """Return the next status of a pod; None where it does not change."""
        labels, created = pod["metadata"]["labels"], pod["metadata"]["creationTimestamp"]
        phase, state = "Running", {"running": {"startedAt": created}}
        if STAGE_LABEL in labels:
            end = await self._end(pod)
            if end is not None:
                code, message = end
                terminated = {"exitCode": code, "message": message, "startedAt": created, "finishedAt": created}
                phase, state = "Failed" if code else "Succeeded", {"terminated": terminated}
        if phase == pod["status"]["phase"]:
            return None
        container = {"name": pod["spec"]["containers"][0]["name"], "image": "x", "imageID": "x", "state": state}
        return {
            "phase": phase,
            "podIP": self._address(pod),
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [container | {"ready": True, "restartCount": 0}],
        }

    async def _end(self, pod: Pod) -> tuple[int, str] | None:
        """Return exit code and message of a stage. An evaluation on a server waits until the server has the result."""
        namespace, labels = pod["metadata"]["namespace"], pod["metadata"]["labels"]
        end = self._parts.get(namespace, Part()).script(pod)
        for argument in pod["spec"]["containers"][0]["args"] if end else ():
            if argument.startswith("--server-url="):
                server = argument.removeprefix("--server-url=http://").partition(".")[0]
                hosted = {route["job"] for route in await self._routes(namespace, server)}
                return end if labels[JOB_LABEL] in hosted else None
        return end

    def _address(self, pod: Pod) -> str:
        uid, labels = pod["metadata"]["uid"], pod["metadata"]["labels"]
        address = self._addresses.setdefault(uid, str(_FIRST_ADDRESS + len(self._addresses)))
        if SERVER_LABEL in labels:
            self._servers[address] = pod["metadata"]["namespace"], labels[SERVER_LABEL]
        return address

    async def _routes(self, namespace: str, server: str) -> list[dict[str, Any]]:
        """Return the routes of a server's routes file."""
        try:
            file = await self._client.request("GET", f"/api/v1/namespaces/{namespace}/configmaps/{server}-routes")
        except ApiError:
            return []
        return list(json.loads(file["data"][ROUTES_FILE.name])["routes"])

    @asynccontextmanager
    async def _serve_pods(self) -> AsyncIterator[None]:
        """Answer at the address of every pod: a trainer's metrics, a server's loaded adapters."""
        app = web.Application()
        app.add_routes([web.get("/metrics", _answer_progress), web.get(LOADED_PATH, self._answer_loaded)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            for port in (METRICS_PORT, SERVER_PORT):
                await web.TCPSite(runner, port=port).start()
            yield
        finally:
            await runner.cleanup()

    async def _answer_loaded(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        namespace, server = self._servers[request.transport.get_extra_info("sockname")[0]]
        refused = self._parts.get(namespace, Part()).refused
        models = []
        for route in await self._routes(namespace, server):
            model = {name: route[name] for name in ("modelName", "job", "digest", "weight")}
            is_refused = route["job"] in refused
            models.append(
                model | {"state": "Refused" if is_refused else "Loaded", "message": refused.get(route["job"], "")}
            )
        return web.json_response({"models": models})


class Player:
    """Runs a `PodSimulator` in a thread, for synchronous tests."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._ready = threading.Event()
        self._simulator: PodSimulator | None = None
        self._task: asyncio.Task[None] | None = None

    def play(self, namespace: str, script: Script) -> None:
        """Set the script of a namespace; by default every stage succeeds."""
        assert self._simulator is not None
        self._simulator.play(namespace, Part(script))

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._simulate())

    async def _simulate(self) -> None:
        async with connect(self._cluster) as client:
            self._simulator = PodSimulator(client)
            self._task = asyncio.create_task(self._simulator.run())
            self._ready.set()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()


def _is_done(pod: Pod) -> bool:
    """Return whether the pod needs no simulation: it is foreign, has ended, or is a server that runs."""
    if not {STAGE_LABEL, SERVER_LABEL} & set(pod["metadata"].get("labels", {})):
        return True
    if "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") not in ("Pending", "Running"):
        return True
    return SERVER_LABEL in pod["metadata"]["labels"] and pod["status"]["phase"] == "Running"


async def _answer_progress(_: web.Request) -> web.Response:
    return web.Response(text=_PROGRESS)
