"""Runs a real vLLM with our plugin on this machine, and writes adapters and routes for it."""

import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from finetune_api.access import RequestLimits
from finetune_api.artifact import measure_directory
from finetune_api.contract.routes import Route, Routes
from finetune_api.digest import digest_directory
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_for

KEY = "key-of-the-tests"
MODEL_URI = "pvc://models/tiny"


@dataclass(frozen=True)
class Server:
    """A server and its routes file."""

    root: Path
    port: int

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        """Return the JSON response of a path."""
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def post(self, path: str, **request: Any) -> tuple[str, Message]:
        """Return the body and the headers of the response to a request."""
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        http_request = urllib.request.Request(f"{self.url}{path}", json.dumps(request).encode(), headers)
        with urllib.request.urlopen(http_request, timeout=60) as response:
            return response.read().decode(), response.headers

    def set_adapters(self, **adapters: Path) -> None:
        """Write the routes: one adapter's directory per public name. The job has the name of the directory."""
        self.set_versions({name: [(adapter, 100)] for name, adapter in adapters.items()})

    def set_adapter_without_thinking(self, name: str, adapter: Path) -> None:
        """Write the routes: one public name, whose adapter was trained with thinking switched off, and wait for it."""
        routes = self.build_routes({name: [(adapter, 100)]})
        routes["routes"][0]["thinkingOff"] = True
        self.write_routes(json.dumps(routes))
        self.wait_for_states(**{name: "Loaded"})

    def set_versions(self, names: dict[str, list[tuple[Path, int]]], limits: RequestLimits | None = None) -> None:
        """Write the routes: for each public name its versions' directories and weights in percent."""
        self.write_routes(json.dumps(self.build_routes(names, limits)))

    def build_routes(
        self, names: dict[str, list[tuple[Path, int]]], limits: RequestLimits | None = None
    ) -> dict[str, Any]:
        """Return the routes for public names with their versions' directories and weights in percent."""
        routes = [
            Route(
                model_name=name.replace("_", "-"),
                job=adapter.name,
                uri=f"pvc://{adapter.relative_to(self.root / 'claims')}",
                digest=digest_directory(adapter),
                bytes=measure_directory(adapter),
                weight=weight,
            )
            for name, versions in names.items()
            for adapter, weight in versions
        ]
        return dict(Routes(routes=routes, limits=limits or RequestLimits()).to_dict())

    def write_routes(self, text: str) -> None:
        """Replace the routes file atomically, as the kubelet does, and wait until a running server has read it."""
        path, partial = self.root / "routes.json", self.root / "routes.part"
        before = None
        if not path.exists() or path.read_text() != text:
            with suppress(OSError):
                before = self.count_routes()
        partial.write_text(text)
        partial.replace(path)
        if before is not None:
            wait_for(lambda: self.count_routes() != before, "the routes to be read")

    def count_routes(self) -> Counter[str]:
        """Return how many routes files the server has read, by outcome.

        Raises:
            OSError: the server does not run.
        """
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        samples = [sample for family in families if family.name == "finetune_routes" for sample in family.samples]
        return Counter({sample.labels["outcome"]: int(sample.value) for sample in samples})

    def states(self) -> dict[str, str]:
        """Return the state of each route by its public name, or by `name@job` if a name has several versions.

        A route that the server has not read yet is Unread; a version without a route is Left.
        """
        models = self.get("/finetune/loaded")["models"]
        reported = {(model["modelName"], model["digest"]): model["state"] for model in models}
        names = [route["modelName"] for route in self.routes()]
        states = {
            route["modelName"] if names.count(route["modelName"]) == 1 else f"{route['modelName']}@{route['job']}": (
                reported.pop((route["modelName"], route["digest"]), "Unread")
            )
            for route in self.routes()
        }
        return states | {f"{name} with {digest}": "Left" for name, digest in reported}

    def routes(self) -> list[dict[str, str]]:
        """Return the routes in the routes file."""
        return list(json.loads((self.root / "routes.json").read_text())["routes"])

    def wait_for_states(self, **states: str) -> None:
        """Wait until the routes are in these states."""
        expected = {name.replace("_AT_", "@").replace("_", "-"): state for name, state in states.items()}
        wait_for(lambda: self.states() == expected, lambda: f"{expected}; there are {self.get('/finetune/loaded')}")


@contextmanager
def run_server(server: Server, *arguments: str) -> Iterator[None]:
    """Run a server for the time of the block, which starts when the server is ready."""
    root = server.root
    (root / "keys").mkdir(exist_ok=True)
    (root / "keys" / "tests").write_text(f"{KEY}\n")
    command = [
        sys.executable,
        "-m",
        "finetune_serving",
        f"--root={root}",
        "serve",
        f"--termination-log={root / 'termination-log'}",
        f"--model-uri={MODEL_URI}",
        "--max-rank=8",
        "--host=127.0.0.1",
        f"--port={server.port}",
        f"--routes={root / 'routes.json'}",
        f"--keys={root / 'keys'}",
        *arguments,
    ]
    with run_until_ready(command, f"{server.url}/readyz", root / "log"):
        yield


@contextmanager
def run_until_ready(command: list[str], url: str, log: Path, **environment: str) -> Iterator[int]:
    """Run a program for the time of the block, which starts when `url` returns 200; yield its process id."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=out, stderr=out)

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    try:
        wait_for(is_ready, lambda: log.read_text()[-3000:], 600)
        yield process.pid
    finally:
        process.terminate()
        process.wait(90)


def make_adapter(model: Path, directory: Path, seed: int, rank: int = 8) -> None:
    """Write a LoRA adapter with random weights and the files that the trainer writes."""
    import torch

    torch.manual_seed(seed)
    save_adapter(add_adapter(model, rank, init_lora_weights=False), directory)


def add_adapter(model: Path, rank: int, **options: Any) -> Any:
    """Return a base model with a new LoRA adapter in peft."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=rank, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)


def save_adapter(adapted: Any, directory: Path) -> None:
    """Write an adapter with the files that the trainer writes."""
    adapted.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": MODEL_URI}))
