"""`finetune-server serve`: becomes vLLM's own server, with our plugin in it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from finetune_api.mounts import SCRATCH
from finetune_api.routes import BASE_NAME

from finetune_serving.config import (
    LORA_MODULES,
    SHUTDOWN_SECONDS,
    ServerConfig,
    allowed_rank,
    has_gpu,
    resolve_model,
    set_environment,
)


@dataclass(frozen=True)
class Serve:
    """The options of the command."""

    model_uri: str
    revision: str | None
    max_model_length: int | None
    max_rank: int
    max_adapters: int
    port: int
    host: str
    root: Path
    routes: Path
    keys: str


def serve(options: Serve) -> None:
    """Replace this process by vLLM; it does not return.

    Raises:
        FetchError: the model cannot be fetched.
        ModelFilesError: the model cannot be served.
    """
    model = resolve_model(options.model_uri, options.root)
    gpu = has_gpu()
    set_environment(gpu=gpu)
    config = ServerConfig(
        model_uri=options.model_uri,
        routes=str(options.routes),
        adapters=str(options.root / str(SCRATCH).lstrip("/") / "adapters"),
        root=str(options.root),
        max_rank=options.max_rank,
        keys=options.keys,
    )
    os.environ |= config.to_env()
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
        # Of each name the version before stays loaded; one more, since what is dropped may still answer a request.
        f"--max-cpu-loras={2 * options.max_adapters + 1}",
        f"--max-lora-rank={allowed_rank(options.max_rank)}",
        "--lora-target-modules",
        *LORA_MODULES,
        f"--shutdown-timeout={SHUTDOWN_SECONDS}",
        "--disable-fastapi-docs",
        "--load-format=safetensors",
        *(["--dtype=auto"] if gpu else ["--dtype=float32", "--enforce-eager"]),
        *([f"--revision={options.revision}"] if options.revision else []),
        *([f"--max-model-len={options.max_model_length}"] if options.max_model_length else []),
    ]
