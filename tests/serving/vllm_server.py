"""Starts a real vLLM with our plugin on this machine, and writes adapters and routes for it."""

import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
    """The running server and its routes file."""

    root: Path
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        """Return the JSON that a path answers."""
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def route(self, **adapters: Path) -> None:
        """Write the routes: a public name for each adapter's directory, whose job has the name of the directory."""
        self.divide({name: [(adapter, 100)] for name, adapter in adapters.items()})

    def divide(self, names: dict[str, list[tuple[Path, int]]], limits: RequestLimits | None = None) -> None:
        """Write the routes: for each public name the directories of its versions with their shares in percent."""
        self.write(json.dumps(self.describe(names, limits)))

    def describe(self, names: dict[str, list[tuple[Path, int]]], limits: RequestLimits | None = None) -> dict[str, Any]:
        """Return those routes."""
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

    def write(self, text: str) -> None:
        """Write the routes file as it is, swapped in at once as the kubelet does; a running server has read it then."""
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
        """Return how many routes files the server has read, by what became of them.

        Raises:
            OSError: it does not run.
        """
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        samples = [one for family in families if family.name == "finetune_routes" for one in family.samples]
        return Counter({one.labels["outcome"]: int(one.value) for one in samples})

    def states(self) -> dict[str, str]:
        """Return the state of each route by its public name, or by `name@job` where a name has several versions.

        Of a route that the server has not read yet it is Unread.
        """
        found = {(one["modelName"], one["digest"]): one["state"] for one in self.get("/finetune/loaded")["models"]}
        names = [route["modelName"] for route in self.routes()]
        states = {
            route["modelName"] if names.count(route["modelName"]) == 1 else f"{route['modelName']}@{route['job']}": (
                found.pop((route["modelName"], route["digest"]), "Unread")
            )
            for route in self.routes()
        }
        return states | {f"{name} with {digest}": "Left" for name, digest in found}

    def routes(self) -> list[dict[str, str]]:
        """Return what the routes file holds."""
        return list(json.loads((self.root / "routes.json").read_text())["routes"])

    def wait_for_states(self, **states: str) -> None:
        """Wait until the routes are in these states."""
        wanted = {name.replace("_AT_", "@").replace("_", "-"): state for name, state in states.items()}
        wait_for(lambda: self.states() == wanted, lambda: f"{wanted}; there are {self.get('/finetune/loaded')}")


@contextmanager
def run_server(server: Server, *arguments: str) -> Iterator[None]:
    """Run a server until its routes have been tried; `root` holds the model, the routes and the keys."""
    root = server.root
    (root / "keys").mkdir(exist_ok=True)
    (root / "keys" / "tests").write_text(f"{KEY}\n")
    command = [
        sys.executable,
        "-m",
        "finetune_serving",
        f"--root={root}",
        "serve",
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
    """Run a program while the block lasts, which begins when a URL answers; yield its process id."""
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
        wait_for(is_ready, lambda: log.read_text()[-3000:], 240)
        yield process.pid
    finally:
        process.terminate()
        process.wait(90)


def make_adapter(model: Path, directory: Path, seed: int, rank: int = 8) -> None:
    """Write a LoRA adapter with random weights, as the trainer writes one."""
    import torch
    from finetune_pod.servability import LORA_MODULES
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=16, target_modules=list(LORA_MODULES), init_lora_weights=False, task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    adapted.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": MODEL_URI}))
