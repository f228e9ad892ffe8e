"""Our changes to vLLM, made in each of its processes before it loads a model."""

from finetune_serving.isolation import zero_kv_cache_blocks
from finetune_serving.vllm_config import has_gpu


def set_up() -> None:
    """Apply the changes. vLLM calls this through the entry point `vllm.general_plugins`."""
    zero_kv_cache_blocks()
    if not has_gpu():
        from finetune_serving.cpu import compute_experts_on_cpus, flatten_rotary_inputs, inspect_models_in_process

        inspect_models_in_process()
        compute_experts_on_cpus()
        flatten_rotary_inputs()
