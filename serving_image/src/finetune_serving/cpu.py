"""vLLM on CPUs, started with one import of its packages instead of four: on two cores that is most of the time.

By itself vLLM imports everything in the API server, in a process that inspects the model's class, in the engine's
process and in its worker's: each is started afresh, since workers bind their threads to cores and CUDA must not be
initialised before a fork. Neither happens here: threads are not bound (`config.set_environment`), and there is no GPU.
"""

import os
from typing import Any

from vllm.platforms import cpu_platform_plugin
from vllm.platforms.cpu import CpuPlatform

_PLATFORM = f"{CpuPlatform.__module__}.{CpuPlatform.__qualname__}"


class ForkingCpuPlatform(CpuPlatform):  # type: ignore[misc]
    """vLLM's CPUs, where the engine's process is forked from the API server's."""

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """Choose fork where vLLM has just chosen spawn; several workers are still started as vLLM starts them."""
        super().check_and_update_config(vllm_config)
        if vllm_config.parallel_config.world_size == 1:
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"


def choose_platform() -> str | None:
    """Name the platform to vLLM (entry point `vllm.platform_plugins`); None leaves the choice to vLLM."""
    if cpu_platform_plugin() != _PLATFORM:
        return None
    return f"{ForkingCpuPlatform.__module__}.{ForkingCpuPlatform.__qualname__}"


def inspect_models_here() -> None:
    """Have vLLM inspect a model's class in the process that asks, which needs the class anyway."""
    # It asks for the platform, which this module may be just about to name.
    from vllm.model_executor.models import registry

    if not hasattr(registry, "_run_in_subprocess"):
        raise RuntimeError("this version of vLLM has another way to inspect a model's class")
    registry._run_in_subprocess = lambda inspect: inspect()  # noqa: SLF001 - vLLM has no switch for it
