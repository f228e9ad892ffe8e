"""The tokenizer of the base model, loaded only after the model's configuration was checked."""

import json
import re
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_pod.chat import (
    Encoded,
    Message,
    Rendered,
    TemplateError,
    apply_template,
    encode,
    render_all,
)
from finetune_pod.modelfiles import ModelFilesError, read_model_config

from finetune_trainer.failures import StageError

_SAMPLE = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
"""A conversation that every chat template can render."""


class Tokenizer:
    """The model's tokenizer and its chat template."""

    def __init__(self, directory: Path, uri: str) -> None:
        """Load the tokenizer and test its chat template.

        Args:
            directory: the directory of the model.
            uri: the URI of the model, for messages.

        Raises:
            StageError: the model contains code, has no chat template or a broken one, or cannot be read.
        """
        config = check_model_config(directory, uri)
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise StageError(Reason.MODEL_UNSUPPORTED, f"{uri}: its tokenizer cannot be loaded: {error}") from error
        if not self.tokenizer.chat_template:
            raise _template_error(f"{uri} has no chat template: use the instruction-tuned variant of the model")
        try:
            self.render(_SAMPLE)
        except TemplateError as error:
            raise _template_error(f"{uri}: {error}: correct the chat_template of its tokenizer") from None
        self.stop_tokens = _read_stop_tokens(directory, config) | {self.tokenizer.eos_token_id}
        """IDs of the tokens that end an answer when the model is served."""
        self.special_token_pattern = re.compile("|".join(map(re.escape, self.tokenizer.all_special_tokens)) or r"(?!)")
        """Matches what the tokenizer reads as a special token, also inside other text."""

    def render(self, example: dict[str, Any]) -> Rendered:
        """Return a conversation or a plain text as text, with the spans of its targets.

        Raises:
            TemplateError: the chat template cannot render it.
        """
        (rendered,) = self.render_all(example).values()
        return rendered

    def render_all(self, example: dict[str, Any]) -> dict[str, Rendered]:
        """Return every sequence of an example of any format, keyed by the field that the sequence ends with.

        Raises:
            TemplateError: the chat template cannot render it.
        """
        tools = example.get("tools")

        def render(messages: list[Message], add_generation_prompt: bool) -> str:  # noqa: FBT001 - a Render
            return self.apply_chat_template(messages, tools, add_generation_prompt)

        return render_all(example, render, self.tokenizer.eos_token or "")

    def apply_chat_template(self, messages: list[Message], tools: Any, add_generation_prompt: bool) -> str:  # noqa: FBT001
        """Return messages and tools as text; the flag appends the tokens that start an answer of the assistant."""
        return apply_template(self.tokenizer, messages, tools, add_generation_prompt)

    @property
    def max_token_id(self) -> int:
        """The largest token ID of the vocabulary."""
        return int(max(self.tokenizer.get_vocab().values()))

    def encode(self, rendered: list[Rendered]) -> list[Encoded]:
        """Return the tokens of each text and which of them are targets."""
        return encode(self.tokenizer, rendered)


def check_model_config(directory: Path, uri: str) -> dict[str, Any]:
    """Return the configuration of a model.

    Raises:
        StageError: the model contains code, or is not a causal language model.
    """
    try:
        return read_model_config(directory, uri)
    except ModelFilesError as error:
        raise StageError(error.reason, str(error)) from None


def _read_stop_tokens(directory: Path, config: dict[str, Any]) -> set[int]:
    """Return the stop tokens that the model's files list; some models have one for each kind of turn."""
    path = directory / "generation_config.json"
    generation = json.loads(path.read_text()) if path.is_file() else {}
    tokens: set[int] = set()
    for value in (config.get("eos_token_id"), generation.get("eos_token_id")):
        tokens |= set(value) if isinstance(value, list) else {value} if isinstance(value, int) else set()
    return tokens


def _template_error(message: str) -> StageError:
    return StageError(Reason.TEMPLATE_INVALID, message)
