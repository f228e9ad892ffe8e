"""The base model's tokenizer and configuration, checked before anything of it is trusted."""

import json
from pathlib import Path
from typing import Any

from finetune_api.chat import Message, Rendered, render_conversation
from finetune_api.conditions import Reason
from finetune_api.reports import ExitCode

from finetune_trainer.failures import StageError

LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers that get an adapter: those that vLLM serves. The output layer stays as it is."""


class Tokenizer:
    """The model's tokenizer and its chat template."""

    def __init__(self, directory: Path, uri: str) -> None:
        """Load them.

        Raises:
            StageError: the model brings code of its own, has no chat template, or cannot be read.
        """
        _refuse_code(directory, uri)
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise _unsupported(f"{uri}: its tokenizer cannot be loaded: {error}") from error
        if not self.tokenizer.chat_template:
            raise _unsupported(f"{uri} has no chat template: use the instruction-tuned variant of the model")

    def render(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Rendered:
        """Render a conversation.

        Raises:
            TemplateError: the template cannot do it.
        """
        return render_conversation(
            messages,
            lambda part, opening: str(
                self.tokenizer.apply_chat_template(part, tools=tools, tokenize=False, add_generation_prompt=opening)
            ),
        )

    def encode(self, rendered: Rendered) -> tuple[list[int], list[int]]:
        """Return token ids and labels, both of the length of the text in tokens; -100 is not learnt."""
        encoded = self.tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = encoded["input_ids"]
        labels = [
            token if any(start <= begin < end for start, end in rendered.spans) else -100
            for token, (begin, _) in zip(ids, encoded["offset_mapping"], strict=True)
        ]
        return ids, labels


def check_architecture(directory: Path, uri: str) -> None:
    """Refuse a model that could be trained but not served.

    Raises:
        StageError: it is no causal language model.
    """
    config = _read_config(directory, uri)
    architectures = config.get("architectures") or []
    if not any(str(name).endswith("ForCausalLM") for name in architectures):
        raise _unsupported(
            f"{uri} is {', '.join(map(str, architectures)) or 'of no known kind'}: a *ForCausalLM is needed"
        )


def _refuse_code(directory: Path, uri: str) -> None:
    config = _read_config(directory, uri)
    if "auto_map" in config or list(directory.glob("*.py")):
        raise _unsupported(f"{uri} brings code of its own, which is never run: use a model that needs none")


def _read_config(directory: Path, uri: str) -> dict[str, Any]:
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise _unsupported(f"{uri}: config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise _unsupported(f"{uri}: config.json is no object")
    return config


def _unsupported(message: str) -> StageError:
    return StageError(ExitCode.BAD_CONFIG, Reason.MODEL_UNSUPPORTED, message)
