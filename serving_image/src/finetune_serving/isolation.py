"""Keeps NaNs that one tuned model computes out of the answers of another.

vLLM gives a request blocks of its KV cache with the previous request's values still in them. Attention reads whole
blocks and gives values that the request did not write a weight of zero. But zero times NaN is NaN: an adapter whose
numbers overflow would spoil other requests (https://github.com/vllm-project/vllm/pull/50283).
"""

from vllm.v1.kv_cache_interface import KVCacheConfig


def zero_kv_cache_blocks() -> None:
    """Make vLLM zero each block before it is reused, as it already does for some kinds of models."""
    if not hasattr(KVCacheConfig, "needs_kv_cache_zeroing"):
        raise RuntimeError(
            "this version of vLLM has no KVCacheConfig.needs_kv_cache_zeroing to zero its cache's blocks"
        )
    KVCacheConfig.needs_kv_cache_zeroing = True
