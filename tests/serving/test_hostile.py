"""Hostile adapters and routes: each is refused with a reason, and the other adapters keep answering."""

import itertools
import json
import os
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from serving.vllm_server import KEY, Server

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
HUGE = 1 << 40
ALPHAS = itertools.count(17)


def rewrite(path: Path, **values: Any) -> None:
    config = path / CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | values))


def reshape(path: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(path / WEIGHTS)
    save_file({name: change(name, tensor).contiguous() for name, tensor in tensors.items()}, path / WEIGHTS)


def link(path: Path, name: str, target: str) -> None:
    (path / name).unlink()
    (path / name).symlink_to(target)


def replace_by_directory(path: Path) -> None:
    (path / WEIGHTS).unlink()
    (path / WEIGHTS).mkdir()


def change_bytes(path: Path, change: Callable[[bytes], bytes]) -> None:
    (path / WEIGHTS).write_bytes(change((path / WEIGHTS).read_bytes()))


def widen(part: str, dimension: int) -> Callable[[Path], None]:
    """Return a change that doubles one dimension of A or B."""
    return lambda path: reshape(
        path, lambda name, tensor: torch.cat([tensor, tensor], dimension) if part in name else tensor
    )


def halve(part: str, dimension: int) -> Callable[[Path], None]:
    """Return a change that halves one dimension of A or B."""
    return lambda path: reshape(path, lambda name, tensor: tensor.chunk(2, dimension)[0] if part in name else tensor)


ADAPTERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pickle next to the weights": (
        lambda path: (path / "adapter_model.bin").write_bytes(b"\x80\x04."),
        "must contain exactly",
    ),
    "a pickle instead of the weights": (
        lambda path: (path / WEIGHTS).rename(path / "adapter_model.bin"),
        "must contain exactly",
    ),
    "code next to the weights": (lambda path: (path / "modeling.py").write_text("import os"), "must contain exactly"),
    "missing weights": (lambda path: (path / WEIGHTS).unlink(), "must contain exactly"),
    "missing configuration": (lambda path: (path / CONFIG).unlink(), "must contain exactly"),
    "a subdirectory": (lambda path: (path / "more").mkdir(), "must contain exactly"),
    "a directory as weights": (replace_by_directory, "must contain exactly"),
    "another base": (lambda path: rewrite(path, base_model_name_or_path="pvc://models/other"), "it was trained on"),
    "another revision": (lambda path: rewrite(path, revision="v2"), "tiny at v2, not on pvc://models/tiny"),
    "no base": (lambda path: rewrite(path, base_model_name_or_path=None), "it was trained on"),
    "a rank too large": (lambda path: rewrite(path, r=64), "its rank is 64"),
    "a rank of 0": (lambda path: rewrite(path, r=0), "its rank is 0"),
    "a negative rank": (lambda path: rewrite(path, r=-8), "its rank is -8"),
    "a rank in words": (lambda path: rewrite(path, r="eight"), "its rank is 'eight'"),
    "a boolean as rank": (lambda path: rewrite(path, r=True), "its rank is True"),
    "the output layer": (lambda path: rewrite(path, target_modules=["lm_head"]), "its target_modules"),
    "a pattern of modules": (lambda path: rewrite(path, target_modules=".*"), "its target_modules"),
    "DoRA": (lambda path: rewrite(path, use_dora=True), "DoRA"),
    "whole modules": (lambda path: rewrite(path, modules_to_save=["embed_tokens"]), "modules_to_save"),
    "biases": (lambda path: rewrite(path, bias="all"), "bias"),
    "another kind of adapter": (lambda path: rewrite(path, peft_type="IA3"), "peft_type"),
    "ranks of single layers": (lambda path: rewrite(path, rank_pattern={"q_proj": 512}), "rank_pattern"),
    "a configuration that is not JSON": (lambda path: (path / CONFIG).write_text("{"), "is not valid JSON"),
    "a deeply nested configuration": (lambda path: (path / CONFIG).write_text("[" * 100_000), "is not valid JSON"),
    "a configuration that is a list": (lambda path: (path / CONFIG).write_text("[]"), "is not a JSON object"),
    "truncated weights": (lambda path: change_bytes(path, lambda data: data[: len(data) // 2]), "its weights"),
    "an empty weights file": (lambda path: change_bytes(path, lambda _: b""), "its weights"),
    "noise as weights": (lambda path: change_bytes(path, lambda data: os.urandom(len(data))), "its weights"),
    "a huge header": (
        lambda path: change_bytes(path, lambda data: (1 << 62).to_bytes(8, "little") + data[8:]),
        "its weights",
    ),
    "integers as weights": (lambda path: reshape(path, lambda _, tensor: tensor.to(torch.int8)), "its weights"),
    "more rows in A than its rank": (widen("lora_A", 0), "its weights"),
    "more columns in B than its rank": (widen("lora_B", 1), "its weights"),
    "too many columns in A": (widen("lora_A", 1), "its weights"),
    "too few columns in A": (halve("lora_A", 1), "its weights"),
    "too many rows in B": (widen("lora_B", 0), "its weights"),
    "too few rows in B": (halve("lora_B", 0), "its weights"),
    "A without B": (
        lambda path: save_file(
            {name: tensor for name, tensor in load_file(path / WEIGHTS).items() if "lora_A" in name}, path / WEIGHTS
        ),
        "its weights",
    ),
    "weights of NaN": (lambda path: reshape(path, lambda _, tensor: tensor * float("nan")), "its weights"),
}


@pytest.fixture
def bad(server: Server) -> Path:
    """A valid adapter to damage. Its content is unique, so that the server has not loaded it already."""
    path = server.root / "claims" / "out" / "hostile"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(server.root / "claims" / "out" / "second", path)
    rewrite(path, lora_alpha=next(ALPHAS))
    return path


def check_still_serving(server: Server) -> None:
    """Check that the server is ready, and that the good adapter answers."""
    with urllib.request.urlopen(f"{server.url}/readyz", timeout=5) as response:
        assert response.status == 200
    body = json.dumps({"model": "bot", "prompt": "hello", "max_tokens": 2}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"{server.url}/v1/completions", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.load(response)["model"] == "bot"


def get_refusal(server: Server) -> str:
    return next(
        str(model["message"]) for model in server.get("/finetune/loaded")["models"] if model["modelName"] == "bad"
    )


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_hostile_adapter_is_refused_with_a_reason(server: Server, bad: Path, name: str) -> None:
    damage, message = ADAPTERS[name]
    damage(bad)
    server.write_routes(json.dumps(build_two_routes(server, bad)))
    server.wait_for_states(bot="Loaded", bad="Refused")
    assert message in get_refusal(server)
    check_still_serving(server)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: link(path, WEIGHTS, "/etc/passwd"), "must contain exactly"),
        (lambda path: link(path, WEIGHTS, str(path.parent / "first" / WEIGHTS)), "must contain exactly"),
        (lambda path: link(path, CONFIG, "/proc/self/environ"), "must contain exactly"),
        (lambda path: rewrite(path, lora_alpha=10_000), "it was changed after the training"),
        (
            lambda path: change_bytes(path, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
            "it was changed after the training",
        ),
        (lambda path: os.truncate(path / WEIGHTS, HUGE), "bytes instead of"),
        (lambda path: os.truncate(path / CONFIG, HUGE), "bytes instead of"),
        (shutil.rmtree, "No such file"),
    ],
)
def test_an_adapter_that_was_changed_after_its_training_is_refused(
    server: Server, bad: Path, damage: Callable[[Path], object], message: str
) -> None:
    routes = build_two_routes(server, bad)
    damage(bad)
    server.write_routes(json.dumps(routes))
    server.wait_for_states(bot="Loaded", bad="Refused")
    assert message in get_refusal(server)
    check_still_serving(server)


def change_route(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda routes: routes["routes"][1].update(values)


@pytest.mark.parametrize(
    "change",
    [
        change_route(uri="/etc"),
        change_route(uri="pvc://out/../../etc"),
        change_route(uri="pvc://../etc"),
        change_route(uri="pvc:///etc"),
        change_route(uri="file:///etc/passwd"),
        change_route(uri="https://example.com/adapter"),
        change_route(uri="pvc://out/second\n"),
        change_route(digest="sha256:../../../../tmp/x"),
        change_route(digest="md5:0"),
        change_route(kind="Pickle"),
        change_route(weight=1000),
        change_route(weight=-1),
        change_route(bytes=-1),
        change_route(modelName="x" * 10_000),
        change_route(modelName="base"),
        change_route(modelName="a/../b"),
        change_route(job="{{ evil }}"),
        lambda routes: routes["routes"].extend(routes["routes"] * 1_000),
        lambda routes: routes.update(routes="all"),
        lambda routes: routes.update(limits={"maxTokens": 0}),
    ],
)
def test_hostile_routes_change_nothing(server: Server, bad: Path, change: Callable[[dict[str, Any]], object]) -> None:
    server.set_adapters(bot=bad.parent / "first")
    server.wait_for_states(bot="Loaded")
    refused = server.count_routes()["refused"]
    routes = build_two_routes(server, bad)
    change(routes)
    server.write_routes(json.dumps(routes))
    assert server.count_routes()["refused"] > refused
    assert [model["modelName"] for model in server.get("/finetune/loaded")["models"]] == ["bot"]
    check_still_serving(server)


def build_two_routes(server: Server, bad: Path) -> dict[str, Any]:
    """Return routes to a good adapter and to the bad one."""
    return server.build_routes({"bot": [(bad.parent / "first", 100)], "bad": [(bad, 100)]})
