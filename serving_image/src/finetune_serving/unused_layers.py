"""Finds layers of a loaded adapter that vLLM does not apply: it ignores names that its model does not have."""

from typing import Any


class UnusedLayers:
    """Extends vLLM's workers (`worker_extension_cls`), which mixes this class into its own."""

    model_runner: Any

    def list_unused_layers(self, lora_id: int) -> list[str]:
        """Return the names of the layers of a loaded adapter that this worker's model does not apply."""
        manager = self.model_runner.lora_manager._adapter_manager  # noqa: SLF001 - vLLM has no method that tells
        return sorted(set(manager.get_adapter(lora_id).loras) - set(manager.modules))
