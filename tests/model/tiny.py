"""Creates a tiny base model, so that the tests download none."""

from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{%- if tools %}<|tools|>{{ tools | tojson }}<|end|>\n{% endif -%}"
    "{%- for message in messages %}<|{{ message.role }}|>{{ message.content or '' }}"
    "{%- for call in message.tool_calls or [] %}<|call|>{{ call.function.name }}"
    " {{ call.function.arguments | tojson }}{% endfor %}<|end|>\n{% endfor -%}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif -%}"
)
_SPECIAL = ["<|pad|>", "<|end|>", "<|tools|>", "<|call|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]


def make_tiny_model(directory: Path, seed: int = 0, layers: int = 2, tokenizer: Any = None) -> Path:
    """Write a randomly initialized Llama of about two million parameters with a byte-level tokenizer.

    Its head size is 64, because vLLM's attention on CPUs refuses smaller ones. A given tokenizer is in the directory
    already, and has at most 512 tokens.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fast = make_tiny_tokenizer(directory) if tokenizer is None else tokenizer
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    return directory


def make_tiny_tokenizer(directory: Path, template: str = CHAT_TEMPLATE) -> Any:
    """Write only the byte-level tokenizer of that model, and return it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the shop answers every question of its customers"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=template
    )
    fast.save_pretrained(directory)
    return fast
