"""The overhead of our plugin over plain vLLM, measured alternately, and the cost of many adapters on one server."""

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from bench.load import ChunkTimes, Load, send_requests
from finetune.local.ports import find_free_port
from finetune_pod.architectures import LORA_LAYERS
from model.tiny import make_tiny_model
from serving.vllm_server import KEY, Server, make_adapter, run_server, run_until_ready

_TURNS = 5
_TOKENS = 32
_SEQUENTIAL_REQUESTS = 60
_CONCURRENT_REQUESTS = 240
_CLIENTS = 8
_ADAPTERS = 8
_LOADS = 20


def measure_serving(root: Path) -> dict[str, Any]:
    """Return the figures of servers on this machine; ratios are medians over the turns."""
    server = _prepare(root)
    plain, ours = [], []
    for turn in range(_TURNS):
        with _run_plain(server):
            plain.append(_measure(server, ["first"]))
        server.set_adapters(first=_adapter(root, 0))
        with run_server(server, "--max-adapters=1"):
            ours.append(_measure(server, ["first"]))
            one_memory = _measure_memory()
        _log(
            f"turn {turn + 1} of {_TURNS}: plain {plain[-1][1].rate:.1f}, ours {ours[-1][1].rate:.1f} requests a second"
        )
    figures = {
        "plugin_overhead_p50_ratio": _ratio([(a.p50, b.p50) for (a, _), (b, _) in zip(ours, plain, strict=True)]),
        "plugin_throughput_ratio": _ratio([(a.rate, b.rate) for (_, a), (_, b) in zip(ours, plain, strict=True)]),
        "p50_ms": round(statistics.median(load.p50 for load, _ in ours) * 1000, 1),
        "requests_per_s": round(statistics.median(load.rate for _, load in ours), 1),
        "turns": _TURNS,
    }
    names = [f"bot-{number}" for number in range(_ADAPTERS)]
    server.set_adapters(**{name: _adapter(root, number) for number, name in enumerate(names)})
    with run_server(server, f"--max-adapters={_ADAPTERS}"):
        pairs = [
            (_send_concurrently(server, names).rate, _send_concurrently(server, names[:1]).rate) for _ in range(_TURNS)
        ]
        eight_memory = _measure_memory()
        _log(f"requests a second with eight adapters and with one: {pairs}")
        stalls = asyncio.run(_measure_stalls(server))
    return figures | {
        "eight_adapters_throughput_ratio": _ratio(pairs),
        "eight_adapters_memory_ratio": round(eight_memory / one_memory, 2),
        **stalls,
    }


def _prepare(root: Path) -> Server:
    make_tiny_model(root / "claims" / "models" / "tiny")
    for number in range(_ADAPTERS + 1):
        make_adapter(root / "claims" / "models" / "tiny", _adapter(root, number), number)
    return Server(root, find_free_port())


def _adapter(root: Path, number: int) -> Path:
    return root / "claims" / "out" / f"adapter-{number}"


@contextmanager
def _run_plain(server: Server) -> Iterator[None]:
    """Run vLLM without our plugin, with the same settings and the same adapter."""
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(server.root / "claims" / "models" / "tiny")),
        *("--served-model-name=base", "--host=127.0.0.1", f"--port={server.port}", "--enable-lora", "--max-loras=1"),
        *("--max-cpu-loras=4", "--max-lora-rank=8", "--lora-target-modules", *sorted(LORA_LAYERS)),
        *("--lora-modules", f"first={_adapter(server.root, 0)}"),
        *("--load-format=safetensors", "--enforce-eager", "--dtype=float32", "--enable-prefix-caching"),
        *("--disable-fastapi-docs", f"--api-key={KEY}"),
    ]
    settings = {
        "VLLM_PLUGINS": "",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    with run_until_ready(
        command, f"{server.url}/health", server.root / "plain.log", VLLM_NO_USAGE_STATS="1", **settings
    ):
        yield


def _measure(server: Server, models: list[str]) -> tuple[Load, Load]:
    """Return the times of sequential requests, and those of concurrent requests."""
    send_requests(server.url, models, KEY, _CLIENTS * 4, _CLIENTS, _TOKENS)
    return send_requests(server.url, models, KEY, _SEQUENTIAL_REQUESTS, 1, _TOKENS), _send_concurrently(server, models)


def _send_concurrently(server: Server, models: list[str]) -> Load:
    return send_requests(server.url, models, KEY, _CONCURRENT_REQUESTS, _CLIENTS, _TOKENS)


def _measure_memory() -> int:
    """Return the memory of the server's processes in bytes, with shared pages counted once (PSS)."""
    return sum(process.memory_full_info().pss for process in psutil.Process().children(recursive=True))


async def _measure_stalls(server: Server) -> dict[str, float]:
    """Return the p99 of the gaps in a stream, in ms, while other adapters are loaded and while none is."""
    chunks = ChunkTimes(server.url, "bot-0", KEY, tokens=256)
    stream = asyncio.create_task(chunks.run())
    idle, loading = [], []
    names = {f"bot-{number}": _adapter(server.root, number) for number in range(_ADAPTERS - 1)}
    for turn in range(_LOADS):
        started = time.perf_counter()
        await asyncio.sleep(1)
        idle += chunks.gaps_between(started, time.perf_counter())
        started = time.perf_counter()
        # Each turn routes bot-7 to another adapter, so each turn loads one adapter.
        await asyncio.to_thread(server.set_adapters, **names | {"bot-7": _adapter(server.root, _ADAPTERS - turn % 2)})
        await asyncio.to_thread(server.wait_for_states, **dict.fromkeys([*names, "bot-7"], "Loaded"))
        loading += chunks.gaps_between(started, time.perf_counter())
    chunks.stop()
    await stream
    return {
        "neighbour_stall_p99_ms": _p99(loading),
        "neighbour_stall_p99_ms_without_a_load": _p99(idle),
        "loads": _LOADS,
    }


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _p99(seconds: list[float]) -> float:
    return round(statistics.quantiles(seconds, n=100)[98] * 1000, 1)


def _ratio(pairs: list[tuple[float, float]]) -> float:
    return round(statistics.median(ours / other for ours, other in pairs), 3)
