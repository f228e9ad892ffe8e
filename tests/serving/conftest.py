"""One real vLLM on a CPU with our plugin, a tiny model and real adapters, for all tests of the tier."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from model.tiny import make_tiny_model
from ports import find_free_port
from serving.vllm_server import Server, make_adapter, run_server


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the mounted volumes, with a base model and two adapters."""
    root = tmp_path_factory.mktemp("serving")
    make_tiny_model(root / "claims" / "models" / "tiny")
    for seed, name in enumerate(("first", "second"), 1):
        make_adapter(root / "claims" / "models" / "tiny", root / "claims" / "out" / name, seed)
    return root


@pytest.fixture(scope="session")
def server(root: Path) -> Iterator[Server]:
    """The server; it starts with one adapter."""
    running = Server(root, find_free_port())
    running.set_adapters(bot=root / "claims" / "out" / "first")
    with run_server(running, "--max-adapters=2"):
        yield running
