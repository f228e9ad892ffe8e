"""The tokens at which vLLM ends a model's answers."""

from typing import Any

from finetune_pod.modelfiles import collect_stop_tokens

from finetune_serving.vllm_config import read_config


def read_stop_tokens(model: str, revision: str | None, tokenizer: Any) -> set[int]:
    """Return the ids of the tokens at which vLLM ends an answer.

    Args:
        model: a directory, or a repository on the hub.
        revision: branch, tag or commit on the hub.
        tokenizer: the model's.
    """
    from transformers import GenerationConfig

    try:
        eos = GenerationConfig.from_pretrained(model, revision=revision).eos_token_id
    except OSError:  # The model has no generation_config.json.
        eos = read_config(model, revision).get("eos_token_id")
    return collect_stop_tokens(eos, tokenizer)
