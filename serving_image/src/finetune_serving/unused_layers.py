"""Finds layers of a loaded adapter that vLLM does not apply: it says nothing about them.

It ignores names that its model does not have. And latent attention computes with the weights that kv_b_proj had when
the model was loaded, so that an adapter of kv_b_proj changes nothing, or only a part.
"""

from collections.abc import Iterator
from typing import Any


class UnusedLayers:
    """Extends vLLM's workers (`worker_extension_cls`), which mixes this class into its own."""

    model_runner: Any

    def list_unused_layers(self, lora_id: int) -> list[str]:
        """Return the names of the layers of a loaded adapter that this worker's model does not apply."""
        manager = self.model_runner.lora_manager._adapter_manager  # noqa: SLF001 - vLLM has no method that tells
        absorbed = set(map(id, self._list_absorbed()))
        applied = {name for name, layer in manager.modules.items() if id(layer.base_layer) not in absorbed}
        return sorted(set(manager.get_adapter(lora_id).loras) - applied)

    def _list_absorbed(self) -> Iterator[Any]:
        """Yield the layers whose weights latent attention has copied."""
        from vllm.model_executor.layers.attention.mla_attention import MLAAttention

        for module in self.model_runner.get_model().modules():
            if isinstance(module, MLAAttention):
                yield getattr(module.kv_b_proj, "base_layer", module.kv_b_proj)
