"""Measures examples with the model's own tokenizer and chat template, and finds what these would lose."""

from typing import Any

import numpy as np
from finetune_api.chat import Rendered, TemplateError

from finetune_trainer.base_model import Tokenizer
from finetune_trainer.dataset import Measured
from finetune_trainer.formats import Example
from finetune_trainer.messages import Message, RowError


class Measurer:
    """Measures for one job: its tokenizer, and how many tokens of a sequence are trained on."""

    def __init__(self, tokenizer: Tokenizer, longest: int) -> None:
        """Measure with this tokenizer; sequences are cut after `longest` tokens."""
        self._tokenizer, self._longest = tokenizer, longest

    def measure(self, examples: list[Example]) -> list[Measured]:
        """Measure examples, in order."""
        rendered = [self._render(example) for example in examples]
        good = [one for one in rendered if isinstance(one, Rendered)]
        encoded = iter(self._tokenizer.encode_all(good))
        return [self._judge(*next(encoded)) if isinstance(one, Rendered) else Measured(0, one) for one in rendered]

    def _render(self, example: Example) -> Rendered | RowError:
        try:
            rendered = self._tokenizer.render(example)
        except TemplateError as error:
            return RowError("template", f"the model's {error}")
        lost = find_lost(example.get("messages", []), rendered.text)
        if lost:
            return RowError("template", f"the model's chat template leaves out {lost}: use a model that knows it")
        return rendered

    def _judge(self, ids: list[int], labels: Any) -> Measured:
        if np.all(labels[: self._longest] == -100):
            message = f"its first {self._longest} tokens hold no answer: raise hyperparameters.maxLength"
            return Measured(len(ids), RowError("truncated", message))
        return Measured(len(ids))


def find_lost(messages: list[Message], text: str) -> str:
    """Name the first part of a conversation that its rendered text does not hold; empty where all is there."""
    for index, message in enumerate(messages):
        content = message.get("content")
        if content and content.strip() not in text:
            return f"messages[{index}].content"
        for number, call in enumerate(message.get("tool_calls") or []):
            if call["function"]["name"] not in text:
                return f"messages[{index}].tool_calls[{number}]"
    return ""
