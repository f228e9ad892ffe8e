"""The families of models that `make families` measures."""

from dataclasses import dataclass
from typing import Any

from finetune_trainer.prepare.tiny_model import shrink


@dataclass(frozen=True)
class Family:
    """An architecture, as transformers and vLLM name it."""

    title: str
    model_type: str
    architecture: str
    problem: str = ""
    """What does not work, as the page says it; empty if everything works."""
    error: str = ""
    """A part of the error with which such a measurement ends."""
    template: str = ""
    """Name of the chat template in TRL; empty if TRL has none of the family."""


PUBLISHED_FIELDS: dict[str, dict[str, Any]] = {
    "afmoe": {"score_func": "sigmoid", "route_norm": True},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy", "n_group": 1, "topk_group": 1},
    "deepseek_v3": {"topk_method": "noaux_tc", "scoring_func": "sigmoid"},
    "gemma4": {"vision_config": {}},
    "glm4_moe": {"head_dim": 16},
    "glm4_moe_lite": {"first_k_dense_replace": 1},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 16},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 16, "block_dim": 64, "conv_dim": 64, "conv_dim_out": 64},
    "minimax_m2": {"rotary_dim": 16, "use_routing_bias": True, "scoring_func": "sigmoid"},
}
"""Fields that published models of a type have, and the configuration of transformers has not."""


def build_tiny_config(model_type: str, architecture: str) -> Any:
    """Return the configuration of a tiny model with the layers of the published ones."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = shrink(CONFIG_MAPPING[model_type](**PUBLISHED_FIELDS.get(model_type, {})))
    config.architectures = [architecture]
    return config


FAMILIES = {
    family.model_type: family
    for family in (
        Family("Llama 3", "llama", "LlamaForCausalLM", template="llama3_1"),
        Family(
            "Llama 4",
            "llama4",
            "Llama4ForConditionalGeneration",
            "TRL's loss does not find the decoder of this class: refused before a GPU is requested",
            "has no attribute 'last_hidden_state'",
        ),
        Family("Qwen 2.5", "qwen2", "Qwen2ForCausalLM", template="qwen2_5"),
        Family("Qwen 3", "qwen3", "Qwen3ForCausalLM", template="qwen3"),
        Family("Qwen 3 MoE", "qwen3_moe", "Qwen3MoeForCausalLM", template="qwen3"),
        Family("Qwen 3 Next", "qwen3_next", "Qwen3NextForCausalLM", template="qwen3_instruct_2507"),
        Family("Qwen 3.5", "qwen3_5", "Qwen3_5ForConditionalGeneration", template="qwen3_5_think"),
        Family("Qwen 3.5 MoE", "qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration", template="qwen3_5_think"),
        Family("Mistral", "mistral", "MistralForCausalLM"),
        Family("Mistral 3", "mistral3", "Mistral3ForConditionalGeneration"),
        Family("Mixtral", "mixtral", "MixtralForCausalLM"),
        Family("Gemma 2", "gemma2", "Gemma2ForCausalLM", template="gemma"),
        Family("Gemma 3, text", "gemma3_text", "Gemma3ForCausalLM", template="gemma3"),
        Family("Gemma 3", "gemma3", "Gemma3ForConditionalGeneration", template="gemma3"),
        Family("Gemma 4", "gemma4", "Gemma4ForConditionalGeneration", template="gemma4"),
        Family("Phi", "phi", "PhiForCausalLM"),
        Family("Phi 3 and 4", "phi3", "Phi3ForCausalLM", template="phi3_5"),
        Family("gpt-oss", "gpt_oss", "GptOssForCausalLM", template="gptoss"),
        Family("GLM-4", "glm4", "Glm4ForCausalLM"),
        Family("GLM-4 MoE", "glm4_moe", "Glm4MoeForCausalLM", template="glm4moe"),
        Family("GLM-4 MoE Lite", "glm4_moe_lite", "Glm4MoeLiteForCausalLM"),
        Family("DeepSeek V2", "deepseek_v2", "DeepseekV2ForCausalLM"),
        Family("DeepSeek V3", "deepseek_v3", "DeepseekV3ForCausalLM", template="deepseekv3"),
        Family("Granite", "granite", "GraniteForCausalLM"),
        Family("Granite 4 hybrid", "granitemoehybrid", "GraniteMoeHybridForCausalLM"),
        Family("OLMo 2", "olmo2", "Olmo2ForCausalLM"),
        Family("OLMo 3", "olmo3", "Olmo3ForCausalLM"),
        Family("LFM2", "lfm2", "Lfm2ForCausalLM", template="lfm2_v2"),
        Family(
            "Nemotron-H",
            "nemotron_h",
            "NemotronHForCausalLM",
            "trained; vLLM serves its experts on GPUs only, so it is not compared",
            "is_act_and_mul=False is supported only for CUDA",
            template="nemotron_3_nano",
        ),
        Family("SmolLM3", "smollm3", "SmolLM3ForCausalLM"),
        Family("Falcon-H1", "falcon_h1", "FalconH1ForCausalLM"),
        Family(
            "MiniMax M2",
            "minimax_m2",
            "MiniMaxM2ForCausalLM",
            "trained; vLLM's router for CPUs has no sigmoid, so it is not compared",
            "AssertionError",
        ),
        Family("Seed-OSS", "seed_oss", "SeedOssForCausalLM"),
        Family("Starcoder 2", "starcoder2", "Starcoder2ForCausalLM"),
    )
}
