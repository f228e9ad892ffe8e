"""The base model's tokenizer and configuration, checked before anything of it is trusted."""

import json
import re
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_pod.chat import (
    Encoded,
    Message,
    Render,
    Rendered,
    TemplateError,
    apply_template,
    encode,
    render_all,
    render_example,
)
from finetune_pod.modelfiles import ModelFilesError, read_model_config

from finetune_trainer.failures import StageError, refuse_model

_SMALL_TALK = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
"""What every chat template renders."""


class Tokenizer:
    """The model's tokenizer and its chat template."""

    def __init__(self, directory: Path, uri: str) -> None:
        """Load them.

        Raises:
            StageError: the model brings code of its own, has no chat template that works, or cannot be read.
        """
        config = check_model(directory, uri)
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise _unsupported(f"{uri}: its tokenizer cannot be loaded: {error}") from error
        if not self.tokenizer.chat_template:
            raise _refuse_template(f"{uri} has no chat template: use the instruction-tuned variant of the model")
        try:
            self.render(_SMALL_TALK)
        except TemplateError as error:
            raise _refuse_template(f"{uri}: {error}: correct chat_template of its tokenizer") from None
        self.stops = _find_stops(directory, config) | {self.tokenizer.eos_token_id}
        """Ids of the tokens that end an answer when the model is served."""
        self.special = re.compile("|".join(map(re.escape, self.tokenizer.all_special_tokens)) or r"(?!)")
        """Finds what the tokenizer reads as a sign of its own, also in the middle of a text."""

    def render(self, example: dict[str, Any]) -> Rendered:
        """Return a conversation or a plain text as text, with the spans of its targets.

        Raises:
            TemplateError: the chat template cannot do it.
        """
        return render_example(example, self._template(example.get("tools")), self.tokenizer.eos_token or "")

    def render_all(self, example: dict[str, Any]) -> dict[str, Rendered]:
        """Return every sequence of an example of any shape, by the field that it ends with.

        Raises:
            TemplateError: the chat template cannot do it.
        """
        return render_all(example, self._template(example.get("tools")), self.tokenizer.eos_token or "")

    def apply(self, messages: list[Message], tools: Any, add_generation_prompt: bool) -> str:  # noqa: FBT001
        """Return messages and tools as text, by the chat template."""
        return apply_template(self.tokenizer, messages, tools, add_generation_prompt)

    def _template(self, tools: list[dict[str, Any]] | None) -> Render:
        return lambda messages, add_generation_prompt: self.apply(messages, tools, add_generation_prompt)

    @property
    def largest_token(self) -> int:
        """The largest id that a text can be given."""
        return int(max(self.tokenizer.get_vocab().values()))

    def encode(self, rendered: list[Rendered]) -> list[Encoded]:
        """Return the tokens of each text and which of them are targets."""
        return encode(self.tokenizer, rendered)


def check_model(directory: Path, uri: str) -> dict[str, Any]:
    """Refuse a model that would run code of its own, or could be trained but not served; return its configuration.

    Raises:
        StageError: it is one of these.
    """
    try:
        return read_model_config(directory, uri)
    except ModelFilesError as error:
        raise refuse_model(error) from None


def _find_stops(directory: Path, config: dict[str, Any]) -> set[int]:
    """Return the ids that end an answer by the model's files: some have several, one for each kind of turn."""
    path = directory / "generation_config.json"
    generation = json.loads(path.read_text()) if path.is_file() else {}
    found: set[int] = set()
    for given in (config.get("eos_token_id"), generation.get("eos_token_id")):
        found |= set(given) if isinstance(given, list) else {given} if isinstance(given, int) else set()
    return found


def _refuse_template(message: str) -> StageError:
    return StageError(Reason.TEMPLATE_INVALID, message)


def _unsupported(message: str) -> StageError:
    return StageError(Reason.MODEL_UNSUPPORTED, message)
