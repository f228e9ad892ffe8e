"""Configurations of tiny models with the kinds of layers of a given one, to try an architecture without its weights."""

from typing import Any

VOCABULARY = 256
"""Tokens of a tiny model."""
_SIZES: dict[str, int] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
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
    "conv_dim_out": 64,
    "rotary_dim": 16,
}
"""The sizes of the tiny model, by the names that the configurations of transformers have for them."""
_VISION_SIZES: dict[str, int] = {
    "hidden_size": 64,
    "embed_dim": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_layers": 1,
    "depth": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_heads": 2,
    "head_dim": 32,
    "global_head_dim": 32,
    "out_hidden_size": 64,
    "projector_input_dim": 64,
    "projector_output_dim": 64,
    "vision_output_dim": 64,
    "position_embedding_size": 64,
}
"""The sizes of the part of a tiny model that reads images."""
_LAYER_KINDS = ("layer_types", "mlp_layer_types", "layers_block_type")
_MIN_LAYERS = 2


def shrink(config: Any) -> Any:
    """Return the configuration of a tiny model with the same kinds of layers.

    Args:
        config: that of a model, which may read images too.
    """
    values = config.to_dict()
    text = find_text_values(config, values)
    _shrink_text(text, _count_layers(text))
    for name in ("vision_config", "audio_config"):
        if values.get(name):
            set_sizes(values[name], _VISION_SIZES)
    return type(config).from_dict(values)


def find_text_values(config: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration's values that describes the language model; it may be all of them."""
    text_config = config.get_text_config()
    name = next((name for name in config.sub_configs if getattr(config, name, None) is text_config), None)
    return values[name] if name else values


def _shrink_text(text: dict[str, Any], layers: int) -> None:
    whole = text.get("num_hidden_layers")
    for name, value in text.items():
        if isinstance(value, list) and len(value) == whole:
            text[name] = value[:layers]
    set_sizes(text, _SIZES)
    if isinstance(text.get("qk_rope_head_dim"), int):
        # Latent attention rotates only a part of a head, and all heads have keys.
        text |= {"head_dim": text["qk_rope_head_dim"], "num_key_value_heads": text["num_attention_heads"]}
    text |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1)
    if whole is not None:
        text["num_hidden_layers"] = layers
    if single := text.get("per_layer_config"):
        text["per_layer_config"] = {number: values for number, values in single.items() if int(number) < layers}
        for values in text["per_layer_config"].values():
            set_sizes(values, _SIZES)


def _count_layers(text: dict[str, Any]) -> int:
    """Return how many of the first layers have all kinds of layers."""
    counts = [_MIN_LAYERS]
    for name in _LAYER_KINDS:
        kinds = text.get(name) or []
        counts.append(next((count for count in range(1, len(kinds) + 1) if set(kinds[:count]) == set(kinds)), 1))
    return max(counts)


def set_sizes(values: dict[str, Any], sizes: dict[str, int]) -> None:
    """Set those of the sizes that a configuration's values have."""
    values |= {name: size for name, size in sizes.items() if type(values.get(name)) is int}
