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
