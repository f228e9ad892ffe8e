"""What one tuned model computes must not reach the answers of another.

A request gets blocks of vLLM's cache as the one before left them. Attention reads them whole and gives what the request
did not write a weight of zero, but zero times a number that is none (NaN) is none either: one adapter whose numbers
overflow would spoil its neighbours' answers (https://github.com/vllm-project/vllm/pull/50283).
"""

from vllm.v1.kv_cache_interface import KVCacheConfig


def isolate() -> None:
    """Have vLLM clear each block before it is used again, as it does for some kinds of models by itself."""
    if not hasattr(KVCacheConfig, "needs_kv_cache_zeroing"):
        raise RuntimeError("this version of vLLM has another way to clear its cache's blocks")
    KVCacheConfig.needs_kv_cache_zeroing = True
