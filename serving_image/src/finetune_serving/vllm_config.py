"""Settings of vLLM, shared by the server and the evaluation, so that the model is evaluated as it is served."""

import json
import os
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune_api.contract.commands import PodPaths
from finetune_api.contract.mounts import SCRATCH, below, path_of
from finetune_api.modelserver import AUTO
from finetune_api.training import LORA_RANKS
from finetune_api.uris import parse_uri
from finetune_pod.architectures import LORA_LAYERS, NOT_ADAPTED
from finetune_pod.modelfiles import check_safetensors, read_model_config
from finetune_pod.objectstore import fetch_model

_VARIABLE = "FINETUNE_SERVER"
TOKENIZER_MODE = "hf"
"""Renders every chat with the model's chat template, as training does. By default vLLM renders those of Mistral,
DeepSeek V3.2 and some others by code of its own; for gpt-oss it always does."""
UNUSED_LAYERS = "finetune_serving.unused_layers.UnusedLayers"
"""Extends vLLM's workers."""
KEEP_ALIVE_SECONDS = 5
"""Seconds for which vLLM keeps an idle connection open."""


@dataclass(frozen=True)
class ServerConfig:
    """Configuration of the plugin inside vLLM, passed as JSON in one environment variable."""

    model_uri: str
    """The base model."""
    model: str
    """The base model's name in vLLM: a directory, or a repository on the hub."""
    revision: str | None
    """Branch, tag or commit on the hub."""
    routes: str
    """The routes file."""
    adapters: str
    """Directory for copies of adapters."""
    root: str
    """The directory below which claims and ConfigMaps are mounted."""
    max_rank: int
    """Maximum rank of an adapter."""
    keys: str = ""
    """Directory with the API keys; empty if the server needs none."""
    chat_template: str | None = None
    """Digest of `model.chatTemplate`; None if vLLM renders with the model's own chat template."""
    template_file: str | None = None
    """Copy of the content of `model.chatTemplate`."""
    tool_call_parser: str = AUTO
    """Parser for tool calls, as in EngineSettings; after `launch` has chosen the one that vLLM uses, or `None`."""
    reasoning_parser: str = AUTO
    """Parser for reasoning, likewise."""
    parser_message: str = ""
    """Why `launch` has found no parser."""
    termination_log: str = PodPaths.termination_log
    """File for the reason why the server cannot start."""

    def to_env(self) -> dict[str, str]:
        """Return the environment variable."""
        return {_VARIABLE: json.dumps(asdict(self))}


def read_server_config() -> ServerConfig:
    """Return the configuration in the environment variable.

    Raises:
        KeyError: vLLM was not started by `finetune-server serve`.
    """
    return ServerConfig(**json.loads(os.environ[_VARIABLE]))


def round_up_rank(rank: int) -> int:
    """Return the smallest value of vLLM's max_lora_rank that admits adapters of a rank."""
    return next(allowed for allowed in LORA_RANKS if allowed >= rank)


def has_gpu() -> bool:
    """Return whether the installed vLLM is built for GPUs. Like vLLM it reads the version's name, without an import."""
    return "cpu" not in version("vllm")


def read_config(model: str, revision: str | None) -> dict[str, Any]:
    """Return the config.json of a model.

    Args:
        model: a directory, or a repository on the hub, from which vLLM fetches the file too.
        revision: branch, tag or commit of the repository.
    """
    path = Path(model) / "config.json"
    if not path.parent.is_dir():
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(model, "config.json", revision=revision))
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def choose_cpu_dtype(config: dict[str, Any]) -> str:
    """Return the data type in which vLLM computes a model on CPUs unless the server's settings name one."""
    # vLLM's gated delta net has no other on CPUs.
    return "bfloat16" if "linear_key_head_dim" in config | config.get("text_config", {}) else "float32"


def list_lora_layers(config: dict[str, Any]) -> list[str]:
    """Return the last parts of the names of the layers for which vLLM reserves room for adapters, for its options.

    It refuses to start with the name of a layer that it cannot adapt. The output layer is none of them: with an adapter
    on it, vLLM crashes on CPUs when it computes the likelihood of a prompt.
    """
    architectures = config.get("architectures") or ()
    return sorted(LORA_LAYERS.difference(*(NOT_ADAPTED.get(name, ()) for name in architectures)))


def set_environment(*, gpu: bool) -> None:
    """Set the environment variables that vLLM reads, before it is started."""
    defaults = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_PLUGINS": "finetune"}
    if not gpu:
        # The image has no C++ compiler, and small models gain nothing from compilation.
        defaults |= {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
        # Every vLLM would bind its threads to the same first cores, while Kubernetes shares all cores among its pods.
        defaults["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # The engine computes in its own process instead of a worker's, which starts faster: see `cpu.py`.
        defaults["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_PLUGINS"] = "finetune"
    os.environ["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = str(KEEP_ALIVE_SECONDS)
    os.environ.pop("VLLM_ALLOW_RUNTIME_LORA_UPDATING", None)


def resolve_model(uri: str, root: Path, cache: Path | None = None, *, weights: bool = True) -> str:
    """Return the model's name in vLLM: a checked directory, or a repository on the hub, which vLLM fetches itself.

    Args:
        uri: the model's URI.
        root: the directory below which claims are mounted.
        cache: directory for fetched models. Default: the pod's scratch volume.
        weights: whether the weights are needed, or only the tokenizer.

    Raises:
        FetchError: the model cannot be fetched.
        ModelFilesError: the directory is not a model, or has code, or pickles instead of safetensors.
    """
    match parse_uri(uri).scheme:
        case "hf":
            return parse_uri(uri).authority
        case "s3":
            directory = fetch_model(uri, (cache or below(root, SCRATCH)) / "models", weights=weights)
        case _:
            directory = path_of(uri, root)
    read_model_config(directory, uri)
    if weights:
        check_safetensors([path.name for path in directory.iterdir()], uri)
    return str(directory)
