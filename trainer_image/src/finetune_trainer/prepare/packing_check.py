"""Measures whether an architecture keeps packed examples apart, on a tiny model of it with random weights.

Packing puts several examples into one row and tells them apart by their positions. Attention can be masked by these;
convolutions and recurrences are often not, and then an example is learned with the ones before it as its context.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

_LENGTH = 12
"""Tokens of each of the two examples."""
_VOCABULARY = 256
_TOLERANCE = 2e-6
"""In float32; mixtures of experts that keep examples apart differ by 3e-7, because they sum in another order."""
_SIZES: dict[str, int] = {
    "vocab_size": _VOCABULARY,
    "vocab_size_per_layer_input": _VOCABULARY,
    "hidden_size": 64,
    "hidden_size_per_layer_input": 16,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 2,
    "num_kv_shared_layers": 0,
    "head_dim": 16,
    "global_head_dim": 16,
    # Latent attention
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    # Mixtures of experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 32,
    "shared_intermediate_size": 64,
    "shared_expert_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    # Convolutions and recurrences
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "mamba_d_ssm": 64,
    "mamba_n_heads": 4,
    "mamba_num_heads": 4,
    "mamba_d_head": 16,
    "mamba_head_dim": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "mamba_expand": 1,
    "mamba_dt_rank": 8,
    "mamba_chunk_size": 16,
    "ssm_state_size": 16,
    "n_groups": 1,
    "chunk_size": 16,
    "block_dim": 64,
    "block_ff_dim": 128,
    "block_multiple_of": 16,
    "conv_dim": 64,
}
"""The sizes of the tiny model, by the names that the configurations of transformers have for them."""
_MIN_LAYERS = 2


def measure_leak(directory: Path) -> float | None:
    """Return by how much the logits of a packed example change with the example before it; 0 if they do not.

    Args:
        directory: the directory of the model, of which only the configuration is read.

    Returns:
        The largest difference of a logit; None if a tiny model of this architecture cannot be built.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = shrink(AutoConfig.from_pretrained(directory, trust_remote_code=False))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).float().eval()
            first, other, second = torch.randint(3, _VOCABULARY, (3, _LENGTH))
            positions = torch.arange(_LENGTH).repeat(2)[None]
            logits = [
                model(input_ids=torch.cat([before, second])[None], position_ids=positions, use_cache=False).logits
                for before in (first, other)
            ]
    except Exception:  # noqa: BLE001 - architectures fail in any way with sizes that they do not expect
        return None
    leak = float((logits[0] - logits[1])[0, _LENGTH:].abs().max())
    return leak if leak > _TOLERANCE else 0.0


def shrink(config: Any) -> Any:
    """Return the configuration of a tiny model with the same kinds of layers."""
    text = config.get_text_config()
    for name, size in _SIZES.items():
        if isinstance(_read(text, name), int):
            setattr(text, name, size)
    if isinstance(_read(text, "qk_rope_head_dim"), int):
        # Latent attention rotates only a part of a head, and all heads have keys.
        text.head_dim, text.num_key_value_heads = text.qk_rope_head_dim, text.num_attention_heads
    kinds = _read(text, "layer_types") or []
    layers = next((count for count in range(1, len(kinds) + 1) if set(kinds[:count]) == set(kinds)), _MIN_LAYERS)
    layers = max(layers, _MIN_LAYERS)
    with suppress(AttributeError):  # Some configurations compute the kinds of their layers.
        text.layer_types = list(kinds[:layers]) or None
    text.num_hidden_layers = layers
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, name, 1)
    return text


def _read(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # noqa: BLE001 - values that differ between layers raise errors of their own
        return None
