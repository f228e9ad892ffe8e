"""What we change in vLLM, in each of its processes, before it loads a model."""

from finetune_serving.isolation import isolate
from finetune_serving.vllm_config import has_gpu


def set_up() -> None:
    """Change it; vLLM calls this by the entry point `vllm.general_plugins`."""
    isolate()
    if not has_gpu():
        from finetune_serving.cpu import inspect_models_here

        inspect_models_here()
