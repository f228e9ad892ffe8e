"""vLLM on CPUs, started with one import of its packages instead of four, which on two cores take most of the start.

By default vLLM imports everything four times: in the API server, in a process that inspects the model's class, in the
engine's process and in its worker's. It spawns each of them, because workers bind their threads to cores and because
CUDA must not be initialized before a fork. Neither applies here: `vllm_config.set_environment` turns the binding off,
and there is no GPU.
"""

import os
from typing import Any

from vllm.platforms import cpu_platform_plugin
from vllm.platforms.cpu import CpuPlatform

_PLATFORM = f"{CpuPlatform.__module__}.{CpuPlatform.__qualname__}"


class ForkingCpuPlatform(CpuPlatform):  # type: ignore[misc]
    """vLLM's CPU platform, with an engine process that is forked from the API server."""

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """Replace vLLM's choice of spawn by fork. With several workers vLLM's choice stays."""
        super().check_and_update_config(vllm_config)
        if vllm_config.parallel_config.world_size == 1:
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"


def choose_platform() -> str | None:
    """Return the class name of the platform (entry point `vllm.platform_plugins`); None leaves the choice to vLLM."""
    if cpu_platform_plugin() != _PLATFORM:
        return None
    return f"{ForkingCpuPlatform.__module__}.{ForkingCpuPlatform.__qualname__}"


def inspect_models_in_process() -> None:
    """Make vLLM inspect a model's class in the calling process, which needs the class anyway."""
    # The import asks for the platform, and vLLM may be importing this module to find the platform.
    from vllm.model_executor.models import registry

    if not hasattr(registry, "_run_in_subprocess"):
        raise RuntimeError(
            "this version of vLLM inspects a model's class in another way: its registry has no _run_in_subprocess"
        )
    registry._run_in_subprocess = lambda inspect: inspect()  # noqa: SLF001 - vLLM has no setting for it


def compute_experts_on_cpus() -> None:
    """Make vLLM compute the experts of mixtures with its kernels for CPUs.

    With adapters enabled it chooses those for GPUs, since only they apply adapters of experts.
    """
    from vllm.model_executor.layers.fused_moe import layer

    config = layer.FusedMoEConfig
    layer.FusedMoEConfig = lambda **fields: config(**fields | {"is_lora_enabled": False})


def flatten_rotary_inputs() -> None:
    """Make vLLM rotate queries and keys right that have a dimension for heads, as those of LFM2.

    Its kernel for CPUs reads any input as [tokens, heads * size], and computes something else without an error.
    """
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    rotate = RotaryEmbedding.forward_cpu

    def forward_cpu(self: Any, positions: Any, query: Any, key: Any = None) -> tuple[Any, Any]:
        rotated, rotated_key = rotate(self, positions, query.flatten(1), None if key is None else key.flatten(1))
        return rotated.view(query.shape), None if key is None else rotated_key.view(key.shape)

    RotaryEmbedding.forward_cpu = forward_cpu
