"""The tokenizer of the base model with the chat template, loaded after the model's configuration was checked."""

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_pod.chat import ChatEncoder
from finetune_pod.modelfiles import ModelFilesError, collect_stop_tokens, read_model_config
from finetune_pod.template import TemplateError
from finetune_pod.template_file import TemplateFile

from finetune_trainer.failures import StageError

_SAMPLE = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
"""A conversation that every chat template can render."""
_CONTROL_TOKEN = re.compile(r"[<\[].*[>\]]")


class Tokenizer:
    """The model's tokenizer and its chat template."""

    def __init__(
        self, directory: Path, uri: str, today: date | None = None, template: TemplateFile | None = None
    ) -> None:
        """Load the tokenizer and test its chat template.

        Args:
            directory: the directory of the model.
            uri: the URI of the model, for messages.
            today: the date for chat templates that print today's; None is the current date.
            template: the chat template of `model.chatTemplate`; None is the model's own.

        Raises:
            StageError: the model contains code, has no chat template or a broken one, or cannot be read.
        """
        config = check_model_config(directory, uri)
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise StageError(Reason.MODEL_UNSUPPORTED, f"{uri}: its tokenizer cannot be loaded: {error}") from error
        if template:
            self.tokenizer.chat_template = template.text
        if not self.tokenizer.chat_template:
            raise _template_error(
                f"{uri} has no chat template: use the instruction-tuned variant of the model, or set model.chatTemplate"
            )
        self.encoder = ChatEncoder(
            self.tokenizer, collect_stop_tokens(_read_eos(directory, config), self.tokenizer), today
        )
        (sample,) = self.encoder.encode([_SAMPLE])
        if isinstance(sample, TemplateError):
            source, remedy = (template.uri, "correct it") if template else (uri, "use another model")
            raise _template_error(f"{source}: with a message of a user and its answer, {sample}: {remedy}")
        control_tokens = {str(token) for token in self.tokenizer.added_tokens_decoder.values()}
        control_tokens = {token for token in control_tokens if _CONTROL_TOKEN.fullmatch(token)}
        names = sorted({*self.tokenizer.all_special_tokens, *control_tokens}, key=len, reverse=True)
        self.control_token_pattern = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        """Matches what the tokenizer reads as a control token, also inside other text."""

    @property
    def max_token_id(self) -> int:
        """The largest token ID of the vocabulary."""
        return int(max(self.tokenizer.get_vocab().values()))


def check_model_config(directory: Path, uri: str) -> dict[str, Any]:
    """Return the configuration of a model.

    Raises:
        StageError: the model contains code, or is not a causal language model.
    """
    try:
        return read_model_config(directory, uri)
    except ModelFilesError as error:
        raise StageError(error.reason, str(error)) from None


def _read_eos(directory: Path, config: dict[str, Any]) -> Any:
    """Return `eos_token_id` of the model's generation_config.json, or of its configuration if there is none."""
    path = directory / "generation_config.json"
    return (json.loads(path.read_text()) if path.is_file() else config).get("eos_token_id")


def _template_error(message: str) -> StageError:
    return StageError(Reason.TEMPLATE_INVALID, message)
