"""Measures examples with the model's own tokenizer and chat template, and finds what these would lose."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from finetune_pod.chat import Rendered, TemplateError

from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.messages import Message
from finetune_trainer.prepare.row_issues import RowError, Warned
from finetune_trainer.prepare.row_warnings import contents_of
from finetune_trainer.tokenizer import Labels, Tokenizer

_ENDING = 4
"""Tokens at the end of what is learnt among which the stop token is looked for: templates put line ends after it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the tokenizer makes of an example, or why it cannot be used."""

    tokens: int = 0
    """Tokens of all its sequences."""
    longest: int = 0
    """Tokens of its longest sequence."""
    learnt: int = 0
    """Tokens that are learnt: those of the answers that are not cut off."""
    problem: RowError | None = None
    warnings: tuple[Warned, ...] = ()


_Sequence = tuple[list[int], Labels]


def measure(tokenizer: Tokenizer, limit: int, examples: list[Example], *, learns_all: bool = False) -> list[Measured]:
    """Measure examples, in order.

    Args:
        tokenizer: the model's.
        limit: tokens after which sequences are cut.
        examples: as `parse_row` returns them.
        learns_all: whether questions are learnt as well as answers.
    """
    drawn = [_render(tokenizer, example) for example in examples]
    encoded = iter(tokenizer.encode_all([one for parts in drawn if isinstance(parts, dict) for one in parts.values()]))
    measured = []
    for example, parts in zip(examples, drawn, strict=True):
        if isinstance(parts, RowError):
            measured.append(Measured(problem=parts))
            continue
        sequences = {field: next(encoded) for field in parts}
        if learns_all:
            sequences = {field: (ids, np.asarray(ids)) for field, (ids, _) in sequences.items()}
        try:
            _check_length(sequences, limit)
        except RowError as error:
            measured.append(Measured(problem=error))
            continue
        lengths = [len(ids) for ids, _ in sequences.values()]
        learnt = [int((labels[:limit] != -100).sum()) for _, labels in sequences.values()]
        warnings = (
            *_find_special(example, tokenizer),
            *_find_lost_names(example, parts),
            *_judge_answers(sequences, tokenizer, limit),
        )
        measured.append(Measured(sum(lengths), max(lengths), sum(learnt), None, warnings))
    return measured


def _render(tokenizer: Tokenizer, example: Example) -> dict[str, Rendered] | RowError:
    try:
        rendered = tokenizer.render_all(example)
    except TemplateError as error:
        return RowError("template", f"the model's {error}: change the row, or use a model whose template takes it")
    for field, one in rendered.items():
        lost = find_lost(example, field, one.text)
        if lost:
            return RowError(
                "template", f"the model's chat template leaves out {lost}: take it out, or use a model that knows it"
            )
    return rendered


def _check_length(sequences: dict[str, _Sequence], limit: int) -> None:
    for field, (ids, labels) in sequences.items():
        if field == "prompt" and len(ids) >= limit:
            raise RowError(
                "truncated", f"its {len(ids)} tokens leave no room for an answer: raise hyperparameters.maxLength"
            )
        if field != "prompt" and np.all(labels[:limit] == -100):
            raise RowError("truncated", f"its first {limit} tokens hold no answer: raise hyperparameters.maxLength")


def _judge_answers(sequences: dict[str, _Sequence], tokenizer: Tokenizer, limit: int) -> Iterator[Warned]:
    for field, (ids, labels) in sequences.items():
        if len(ids) > limit:
            yield Warned(
                "truncated", f"{field} has {len(ids)} tokens, its end is cut off: raise hyperparameters.maxLength"
            )
            continue
        learnt = labels[labels != -100].tolist()
        if not learnt:
            continue
        ending = learnt[-_ENDING:]
        after = next((len(ending) - index for index, token in enumerate(ending) if token in tokenizer.stops), 0)
        if not after:
            yield Warned(
                "stop",
                f"the end of {field} is none of the model's stop tokens, so it may not learn to stop:"
                " name the token that ends a turn in eos_token_id of its generation_config.json",
            )
        if len(learnt) - after < 2:
            yield Warned("short", f"the answer in {field} is a single token: is it whole?")


def _find_special(example: Example, tokenizer: Tokenizer) -> Iterator[Warned]:
    for place, content in contents_of(example):
        found = tokenizer.special.search(content)
        if found:
            yield Warned("special", f"{place} holds {found.group()}, which is a sign of the model's own: take it out")


def _find_lost_names(example: Example, parts: dict[str, Rendered]) -> Iterator[Warned]:
    for field, rendered in parts.items():
        for place, message in _messages_of(example, field):
            name = message.get("name")
            if name and message["role"] != "tool" and name not in rendered.text:
                yield Warned(
                    "name", f"{place}.name is left out by the model's chat template: write it into the content"
                )


def find_lost(example: Example, field: str, text: str) -> str:
    """Name the first part of an example that a rendered sequence does not hold; empty where all is there.

    Args:
        example: the example.
        field: the field that the sequence ends with.
        text: the sequence as the model reads it.
    """
    for index, tool in enumerate(example.get("tools", ())):
        if tool["function"]["name"] not in text:
            return f"tools[{index}]"
    position = 0
    for place, message in _messages_of(example, field):
        # Templates may put the system's words anywhere; what is said in turn stays in turn.
        in_turn = message["role"] not in ("system", "developer")
        end = _find((message.get("content") or "").strip(), text, position if in_turn else 0)
        if end is None:
            return f"{place}.content"
        position = end if in_turn else position
        for number, call in enumerate(message.get("tool_calls") or []):
            if not _holds_call(text, call["function"]):
                return f"{place}.tool_calls[{number}]"
    return ""


def _find(value: str, text: str, position: int = 0) -> int | None:
    """Return where a value ends in a text, as it is or as JSON writes it; None where it is not there."""
    for form in (value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1]):
        found = text.find(form, position)
        if found >= 0:
            return found + len(form)
    return None


def _holds_call(text: str, function: dict[str, Any]) -> bool:
    """Tell whether a text holds a tool's name and every text among the call's arguments."""
    values = [value for value in function["arguments"].values() if isinstance(value, str)]
    return function["name"] in text and all(_find(value, text) is not None for value in values)


def _messages_of(example: Example, field: str) -> Iterator[tuple[str, Message]]:
    """Yield place and message of what a sequence is rendered from."""
    fields = [field] if field in ("messages", "prompt") else ["prompt", field]
    for one in fields:
        for index, message in enumerate(example.get(one, ()) if field != "text" else ()):
            yield f"{one}[{index}]", message
