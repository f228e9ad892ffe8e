"""One real vLLM on a CPU with our plugin, a tiny model and real adapters, for all tests of the tier."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from finetune_api.digest import digest_directory
from finetune_api.routes import Route, Routes
from model.tiny import make_tiny_model
from waiting import wait_for

PORT = 18001
MODEL_URI = "pvc://models/tiny"


@dataclass(frozen=True)
class Server:
    """The running server and its routes file."""

    root: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{PORT}"

    def get(self, path: str) -> Any:
        """Return the JSON that a path answers."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as response:
            return json.load(response)

    def route(self, **adapters: Path) -> None:
        """Write the routes: a public name for each adapter's directory, swapped in at once as the kubelet does."""
        routes = [
            Route(
                model_name=name.replace("_", "-"),
                job=name,
                path=f"/{adapter.relative_to(self.root)}",
                digest=digest_directory(adapter),
            )
            for name, adapter in adapters.items()
        ]
        self.write(json.dumps(Routes(routes=routes).to_dict()))

    def write(self, text: str) -> None:
        """Write the routes file as it is."""
        partial = self.root / "routes.part"
        partial.write_text(text)
        partial.replace(self.root / "routes.json")

    def states(self) -> dict[str, str]:
        """Return the state of each route; of one that the server has not read yet it is Unread."""
        written = {route["modelName"]: route["digest"] for route in self.routes()}
        models = self.get("/finetune/loaded")["models"]
        return {
            model["modelName"]: model["state"] if written.get(model["modelName"]) == model["digest"] else "Unread"
            for model in models
        }

    def routes(self) -> list[dict[str, str]]:
        """Return what the routes file holds."""
        return list(json.loads((self.root / "routes.json").read_text())["routes"])

    def wait_for_states(self, **states: str) -> None:
        """Wait until the routes are in these states."""
        wanted = {name.replace("_", "-"): state for name, state in states.items()}
        wait_for(lambda: self.states() == wanted, lambda: f"{wanted}; there are {self.get('/finetune/loaded')}")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pods mount, with a base model and two adapters."""
    root = tmp_path_factory.mktemp("serving")
    make_tiny_model(root / "claims" / "models" / "tiny")
    for seed, name in enumerate(("first", "second"), 1):
        make_adapter(root / "claims" / "models" / "tiny", root / "claims" / "out" / name, seed)
    return root


@pytest.fixture(scope="session")
def server(root: Path) -> Iterator[Server]:
    """The server; it begins with one adapter."""
    running = Server(root)
    running.route(bot=root / "claims" / "out" / "first")
    command = [
        sys.executable,
        "-m",
        "finetune_serving",
        f"--root={root}",
        "serve",
        f"--model-uri={MODEL_URI}",
        "--max-rank=8",
        "--max-adapters=2",
        "--host=127.0.0.1",
        f"--port={PORT}",
        f"--routes={root / 'routes.json'}",
    ]
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ, stdout=log, stderr=log)

    def is_ready() -> bool:
        assert process.poll() is None, (root / "log").read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{running.url}/readyz", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    wait_for(is_ready, lambda: (root / "log").read_text()[-3000:], 240)
    yield running
    process.terminate()
    process.wait(90)


def make_adapter(model: Path, directory: Path, seed: int, rank: int = 8) -> None:
    """Write a LoRA adapter with random weights, as the trainer writes one."""
    import torch
    from finetune_serving.config import LORA_MODULES
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
