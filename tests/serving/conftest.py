"""One real vLLM on a CPU with our plugin, a tiny model and real adapters, for all tests of the tier.

The model's chat template writes reasoning and tool calls.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from finetune.local.ports import find_free_port
from model.tiny import make_tiny_model
from serving.tool_caller import TEMPLATE, make_tool_caller
from serving.vllm_server import Server, make_adapter, run_server
from template_check import make_template_tokenizer


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the mounted volumes, with a base model, two random adapters and one that calls tools."""
    root = tmp_path_factory.mktemp("serving")
    model = root / "claims" / "models" / "tiny"
    tokenizer, _ = make_template_tokenizer(model, TEMPLATE)
    make_tiny_model(model, tokenizer=tokenizer)
    for seed, name in enumerate(("first", "second"), 1):
        make_adapter(model, root / "claims" / "out" / name, seed)
    make_tool_caller(model, root / "claims" / "out" / "caller")
    return root


@pytest.fixture(scope="session")
def server(root: Path) -> Iterator[Server]:
    """The server; it starts with one adapter."""
    running = Server(root, find_free_port())
    running.set_adapters(bot=root / "claims" / "out" / "first")
    with run_server(running, "--max-adapters=2"):
        yield running
