"""Measures examples with the model's own tokenizer and chat template, and finds what these would lose."""

import numpy as np
from finetune_api.chat import Rendered, TemplateError

from finetune_trainer.base_model import Labels, Tokenizer
from finetune_trainer.dataset import Measured
from finetune_trainer.formats import Example
from finetune_trainer.messages import Message, RowError


def measure(tokenizer: Tokenizer, longest: int, examples: list[Example]) -> list[Measured]:
    """Measure examples, in order; sequences are cut after `longest` tokens."""
    rendered = [_render(tokenizer, example) for example in examples]
    encoded = iter(tokenizer.encode_all([one for one in rendered if isinstance(one, Rendered)]))
    return [_judge(*next(encoded), longest) if isinstance(one, Rendered) else Measured(0, one) for one in rendered]


def _render(tokenizer: Tokenizer, example: Example) -> Rendered | RowError:
    try:
        rendered = tokenizer.render(example)
    except TemplateError as error:
        return RowError("template", f"the model's {error}")
    lost = find_lost(example.get("messages", []), rendered.text)
    if lost:
        return RowError("template", f"the model's chat template leaves out {lost}: use a model that knows it")
    return rendered


def _judge(ids: list[int], labels: Labels, longest: int) -> Measured:
    if np.all(labels[:longest] == -100):
        message = f"its first {longest} tokens hold no answer: raise hyperparameters.maxLength"
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
