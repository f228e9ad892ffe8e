"""`finetune-server serve`: becomes vLLM's own server, with our plugin in it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from finetune_api.contract.mounts import SCRATCH, below
from finetune_api.modelserver import EngineSettings
from finetune_api.references import BASE_NAME
from finetune_pod.servability import LORA_MODULES

from finetune_serving.gateway.drain import marker_of
from finetune_serving.vllm_config import (
    ServerConfig,
    allowed_rank,
    has_gpu,
    resolve_model,
    set_environment,
)

_SHUTDOWN_SECONDS = 30
"""Time for requests in flight after SIGTERM, of which a pod that was drained has none."""


@dataclass(frozen=True)
class Serve:
    """The options of the command."""

    model_uri: str
    revision: str | None
    engine: EngineSettings
    max_rank: int
    max_adapters: int
    port: int
    host: str
    root: Path
    routes: Path
    keys: str
    model_cache: Path


def serve(options: Serve) -> None:
    """Replace this process by vLLM; it does not return.

    Raises:
        FetchError: the model cannot be fetched.
        ModelFilesError: the model cannot be served.
    """
    cache = below(options.root, options.model_cache)
    os.environ["HF_HOME"] = str(cache / "huggingface")
    model = resolve_model(options.model_uri, options.root, cache)
    gpu = has_gpu()
    set_environment(gpu=gpu)
    config = ServerConfig(
        model_uri=options.model_uri,
        model=model,
        revision=options.revision,
        routes=str(options.routes),
        adapters=str(below(options.root, SCRATCH) / "adapters"),
        root=str(options.root),
        max_rank=options.max_rank,
        keys=options.keys,
    )
    os.environ |= config.to_env()
    # A container that was started again in the same pod finds the volume as it was.
    marker_of(options.root).unlink(missing_ok=True)
    sys.stdout.flush()
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", *build_arguments(options, model, gpu=gpu)]
    os.execv(sys.executable, command)  # noqa: S606 - there is nothing for a shell to do


def build_arguments(options: Serve, model: str, *, gpu: bool) -> list[str]:
    """Return vLLM's arguments. Pure."""
    return [
        model,
        f"--served-model-name={BASE_NAME}",
        f"--host={options.host}",
        f"--port={options.port}",
        "--enable-lora",
        f"--max-loras={options.max_adapters}",
        # Of each name the version before stays loaded; two more, since one is evaluated, and what is dropped may still
        # answer a request.
        f"--max-cpu-loras={2 * options.max_adapters + 2}",
        f"--max-lora-rank={allowed_rank(options.max_rank)}",
        "--lora-target-modules",
        *LORA_MODULES,
        f"--shutdown-timeout={_SHUTDOWN_SECONDS}",
        "--disable-fastapi-docs",
        "--load-format=safetensors",
        *([] if gpu else ["--enforce-eager"]),
        *_engine_arguments(options.engine, gpu=gpu),
        *([f"--revision={options.revision}"] if options.revision else []),
    ]


def _engine_arguments(engine: EngineSettings, *, gpu: bool) -> list[str]:
    values = {
        "max-model-len": engine.max_model_len,
        "dtype": engine.dtype or ("auto" if gpu else "float32"),
        "quantization": engine.quantization,
        "kv-cache-dtype": engine.kv_cache_dtype,
        "tensor-parallel-size": engine.tensor_parallel_size,
        "gpu-memory-utilization": engine.gpu_memory_utilization,
        "max-num-seqs": engine.max_num_seqs,
    }
    given = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return [*given, "--enable-prefix-caching" if engine.enable_prefix_caching else "--no-enable-prefix-caching"]
