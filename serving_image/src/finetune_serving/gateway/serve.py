"""`finetune-server serve`: becomes vLLM's own server, with our plugin in it."""

import os
import sys
from pathlib import Path

from finetune_api.contract.commands import Serve
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


def serve(command: Serve, root: Path) -> None:
    """Replace this process by vLLM; it does not return.

    Raises:
        FetchError: the model cannot be fetched.
        ModelFilesError: the model cannot be served.
    """
    cache = below(root, command.model_cache)
    os.environ["HF_HOME"] = str(cache / "huggingface")
    model = resolve_model(command.model_uri, root, cache)
    gpu = has_gpu()
    set_environment(gpu=gpu)
    config = ServerConfig(
        model_uri=command.model_uri,
        model=model,
        revision=command.revision,
        routes=str(command.routes),
        adapters=str(below(root, SCRATCH) / "adapters"),
        root=str(root),
        max_rank=command.max_rank,
        keys=command.keys,
    )
    os.environ |= config.to_env()
    # A container that was started again in the same pod finds the volume as it was.
    marker_of(root).unlink(missing_ok=True)
    sys.stdout.flush()
    arguments = build_arguments(command, model, gpu=gpu)
    program = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", *arguments]
    os.execv(sys.executable, program)  # noqa: S606 - there is nothing for a shell to do


def build_arguments(command: Serve, model: str, *, gpu: bool) -> list[str]:
    """Return vLLM's arguments. Pure."""
    return [
        model,
        f"--served-model-name={BASE_NAME}",
        f"--host={command.host}",
        f"--port={command.port}",
        "--enable-lora",
        f"--max-loras={command.max_adapters}",
        # Of each name the version before stays loaded; two more, since one is evaluated, and what is dropped may still
        # answer a request.
        f"--max-cpu-loras={2 * command.max_adapters + 2}",
        f"--max-lora-rank={allowed_rank(command.max_rank)}",
        "--lora-target-modules",
        *LORA_MODULES,
        f"--shutdown-timeout={_SHUTDOWN_SECONDS}",
        "--disable-fastapi-docs",
        "--load-format=safetensors",
        *([] if gpu else ["--enforce-eager"]),
        *_engine_arguments(command.engine, gpu=gpu),
        *([f"--revision={command.revision}"] if command.revision else []),
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
