"""`finetune-server serve`: replaces itself with vLLM's own server, which `launch` starts and which loads our plugin."""

import os
import sys
from pathlib import Path
from typing import Any

from finetune_api.contract.commands import PodPaths, Serve
from finetune_api.contract.mounts import SCRATCH, below
from finetune_api.contract.routes import Routes
from finetune_api.modelserver import AUTO, EngineSettings
from finetune_api.references import BASE_NAME
from finetune_pod.template_file import TemplateFile, TemplateFileError, read_template
from pydantic import ValidationError

from finetune_serving.gateway.drain import build_drain_marker_path
from finetune_serving.vllm_config import (
    TOKENIZER_MODE,
    UNUSED_LAYERS,
    ServerConfig,
    choose_cpu_dtype,
    has_gpu,
    list_lora_layers,
    read_config,
    resolve_model,
    round_up_rank,
    set_environment,
)

_SHUTDOWN_SECONDS = 30
"""vLLM's grace period for requests in flight after SIGTERM. A drained pod has none."""


def serve(command: Serve, paths: PodPaths) -> None:
    """Replace this process by vLLM's server.

    Raises:
        FetchError: the model cannot be fetched.
        ModelFilesError: the model or its chat template cannot be served.
    """
    root = paths.root
    template = read_template(command.chat_template, root) if command.chat_template else None
    if template:
        check_template(template, command.routes)
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
        chat_template=template.digest if template else None,
        template_file=_copy_template(template, root) if template else None,
        tool_call_parser=command.engine.tool_call_parser or AUTO,
        reasoning_parser=command.engine.reasoning_parser or AUTO,
        termination_log=paths.termination_log,
    )
    os.environ |= config.to_env()
    # After a container restart the pod's volume may still have the marker.
    build_drain_marker_path(root).unlink(missing_ok=True)
    sys.stdout.flush()
    arguments = build_arguments(command, model, read_config(model, command.revision), gpu=gpu)
    program = [sys.executable, "-m", "finetune_serving.gateway.launch", "serve", *arguments]
    os.execv(sys.executable, program)  # noqa: S606 - no shell is needed


def check_template(template: TemplateFile, routes: Path) -> None:
    """Refuse a chat template that is not the one with which the server was started first, and its adapters trained.

    Raises:
        TemplateFileError: the message says what to do.
    """
    try:
        expected = Routes.model_validate_json(routes.read_text()).chat_template
    except (OSError, ValidationError):  # The loader reports it, and no adapter is loaded.
        return
    if expected and expected != template.digest:
        raise TemplateFileError(
            f"{template.uri} was changed since this server started with it: restore the content with the digest"
            f" {expected[:19]}, or create another ModelServer"
        )


def _copy_template(template: TemplateFile, root: Path) -> str:
    """Copy the template, since the kubelet updates the mounted ConfigMap; return the path of the copy."""
    path = below(root, SCRATCH) / "chat-template.jinja"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(template.text, encoding="utf-8")
    return str(path)


def build_arguments(command: Serve, model: str, model_config: dict[str, Any], *, gpu: bool) -> list[str]:
    """Return the arguments of `vllm serve`, without those that `launch` adds.

    Args:
        command: the command line.
        model: the name of the model in vLLM.
        model_config: its config.json.
        gpu: whether vLLM is built for GPUs.
    """
    return [
        model,
        f"--served-model-name={BASE_NAME}",
        f"--host={command.host}",
        f"--port={command.port}",
        "--enable-lora",
        f"--max-loras={command.max_adapters}",
        # The previous version of each name stays loaded. Two more slots: one version is under evaluation, and one that
        # lost its route may still answer a request.
        f"--max-cpu-loras={2 * command.max_adapters + 2}",
        f"--max-lora-rank={round_up_rank(command.max_rank)}",
        "--lora-target-modules",
        *list_lora_layers(model_config),
        f"--worker-extension-cls={UNUSED_LAYERS}",
        f"--shutdown-timeout={_SHUTDOWN_SECONDS}",
        "--disable-fastapi-docs",
        "--load-format=safetensors",
        f"--tokenizer-mode={TOKENIZER_MODE}",
        "--language-model-only",
        *([] if gpu else ["--enforce-eager"]),
        *_engine_arguments(command.engine, model_config, gpu=gpu),
        *([f"--revision={command.revision}"] if command.revision else []),
    ]


def _engine_arguments(engine: EngineSettings, model_config: dict[str, Any], *, gpu: bool) -> list[str]:
    values = {
        "max-model-len": engine.max_model_len,
        "dtype": engine.dtype or ("auto" if gpu else choose_cpu_dtype(model_config)),
        "quantization": engine.quantization,
        "kv-cache-dtype": engine.kv_cache_dtype,
        "tensor-parallel-size": engine.tensor_parallel_size,
        "gpu-memory-utilization": engine.gpu_memory_utilization,
        "max-num-seqs": engine.max_num_seqs,
    }
    given = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return [*given, "--enable-prefix-caching" if engine.enable_prefix_caching else "--no-enable-prefix-caching"]
