"""The base model's tokenizer and configuration, checked before anything of it is trusted."""

from pathlib import Path
from typing import Any

from finetune_api.chat import Message, Rendered, render_conversation
from finetune_api.conditions import Reason
from finetune_api.modelfiles import ModelFilesError, read_model_config
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
        check_model(directory, uri)
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


def check_model(directory: Path, uri: str) -> None:
    """Refuse a model that would run code of its own, or could be trained but not served.

    Raises:
        StageError: it is one of these.
    """
    try:
        read_model_config(directory, uri)
    except ModelFilesError as error:
        raise _unsupported(str(error)) from None


def _unsupported(message: str) -> StageError:
    return StageError(ExitCode.BAD_CONFIG, Reason.MODEL_UNSUPPORTED, message)
