"""How vLLM is started: one way for the server and for the evaluation, so that what is judged is what is served."""

import json
import os
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from finetune_api.contract.mounts import SCRATCH, below, path_of
from finetune_api.training import LORA_RANKS
from finetune_api.uris import parse_uri
from finetune_pod.modelfiles import check_safetensors, read_model_config
from finetune_pod.objectstore import fetch_model

_VARIABLE = "FINETUNE_SERVER"
KEEP_ALIVE_SECONDS = 5
"""How long a connection without a request is kept open."""


@dataclass(frozen=True)
class ServerConfig:
    """What the plugin inside vLLM must know; it travels in one environment variable."""

    model_uri: str
    model: str
    """What vLLM calls it: a directory, or a repository on the hub."""
    revision: str | None
    routes: str
    adapters: str
    root: str
    max_rank: int
    keys: str = ""
    """Directory with the API keys; empty where the server asks for none."""

    def to_env(self) -> dict[str, str]:
        """Return the variable."""
        return {_VARIABLE: json.dumps(asdict(self))}


def read_server_config() -> ServerConfig:
    """Read the variable.

    Raises:
        KeyError: vLLM was not started by `finetune-server serve`.
    """
    return ServerConfig(**json.loads(os.environ[_VARIABLE]))


def allowed_rank(rank: int) -> int:
    """Return the smallest rank that vLLM allows and that takes adapters of this one."""
    return next(allowed for allowed in LORA_RANKS if allowed >= rank)


def has_gpu() -> bool:
    """Tell whether this vLLM is built for GPUs, by the name of its version as vLLM does, without importing it."""
    return "cpu" not in version("vllm")


def set_environment(*, gpu: bool) -> None:
    """Set what vLLM reads from the environment, before it is started."""
    defaults = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_PLUGINS": "finetune"}
    if not gpu:
        # The image has no C++ compiler, and small models gain nothing from one.
        defaults |= {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
        # Every vLLM would bind itself to the same first cores, though Kubernetes shares all of them among its pods.
        defaults["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # The engine computes in its own process instead of a worker's: `cpu.py` says why that is faster to start.
        defaults["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_PLUGINS"] = "finetune"
    os.environ["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = str(KEEP_ALIVE_SECONDS)
    os.environ.pop("VLLM_ALLOW_RUNTIME_LORA_UPDATING", None)


def resolve_model(uri: str, root: Path, cache: Path | None = None, *, weights: bool = True) -> str:
    """Return what vLLM calls the model: a checked directory, or a repository on the hub, which vLLM fetches itself.

    Args:
        uri: of the model.
        root: below which the pod's paths lie.
        cache: where a model that is fetched is kept; without it the pod's scratch volume.
        weights: whether they are needed, or the tokenizer alone.

    Raises:
        FetchError: it cannot be fetched.
        ModelFilesError: the directory is no model, or holds code or pickles instead of safetensors.
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
