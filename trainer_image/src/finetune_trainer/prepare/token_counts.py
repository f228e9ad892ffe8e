"""Counts the tokens of examples with the model's own tokenizer and chat template, and finds what these omit."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from finetune_pod.chat import Encoded, Rendered, TemplateError

from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.messages import Message
from finetune_trainer.prepare.row_issues import RowError, RowWarning
from finetune_trainer.prepare.row_warnings import iterate_contents
from finetune_trainer.tokenizer import Tokenizer

_ENDING = 4
"""The stop token is searched among so many tokens at the end of the targets: templates write line breaks after it."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """How many tokens an example has, or why it cannot be used."""

    total: int = 0
    """Tokens of all its sequences."""
    longest: int = 0
    """Tokens of its longest sequence."""
    targets: int = 0
    """Target tokens that are not truncated."""
    error: RowError | None = None
    warnings: tuple[RowWarning, ...] = ()


def count_tokens(
    tokenizer: Tokenizer, max_length: int, examples: list[Example], *, train_on_prompts: bool = False
) -> list[TokenCounts]:
    """Count the tokens of each example.

    Args:
        tokenizer: the model's.
        max_length: tokens after which training truncates a sequence.
        examples: from `parse_row`.
        train_on_prompts: whether all tokens are targets, and not only those of the answers.
    """
    rendered = [_render(tokenizer, example) for example in examples]
    usable = [sequences for sequences in rendered if isinstance(sequences, dict)]
    encoded = iter(tokenizer.encode([sequence for sequences in usable for sequence in sequences.values()]))
    counts = []
    for example, sequences in zip(examples, rendered, strict=True):
        if isinstance(sequences, RowError):
            counts.append(TokenCounts(error=sequences))
            continue
        tokens = {field: next(encoded) for field in sequences}
        if train_on_prompts:
            tokens = {field: Encoded(one.ids, np.ones(len(one.ids), dtype=bool)) for field, one in tokens.items()}
        try:
            _check_length(tokens, max_length)
        except RowError as error:
            counts.append(TokenCounts(error=error))
            continue
        lengths = [len(sequence.ids) for sequence in tokens.values()]
        targets = sum(int(sequence.is_target[:max_length].sum()) for sequence in tokens.values())
        warnings = (
            *_find_special_tokens(example, tokenizer),
            *_find_omitted_names(example, sequences),
            *_check_endings(tokens, tokenizer, max_length),
        )
        counts.append(TokenCounts(sum(lengths), max(lengths), targets, None, warnings))
    return counts


def _render(tokenizer: Tokenizer, example: Example) -> dict[str, Rendered] | RowError:
    try:
        rendered = tokenizer.render_all(example)
    except TemplateError as error:
        return RowError("template", f"{error}: change the row, or use a model whose chat template accepts it")
    for field, sequence in rendered.items():
        omitted = find_omitted(example, field, sequence.text)
        if omitted:
            return RowError(
                "template",
                f"the model's chat template omits {omitted}: remove it, or use a model whose template renders it",
            )
    return rendered


def _check_length(tokens: dict[str, Encoded], max_length: int) -> None:
    for field, encoded in tokens.items():
        if field == "prompt" and len(encoded.ids) >= max_length:
            raise RowError(
                "truncated",
                f"prompt has {len(encoded.ids)} tokens, which leaves none for an answer:"
                " raise hyperparameters.maxLength",
            )
        if field != "prompt" and not encoded.is_target[:max_length].any():
            raise RowError(
                "truncated",
                f"the first {max_length} tokens contain no part of an answer: raise hyperparameters.maxLength",
            )


def _check_endings(tokens: dict[str, Encoded], tokenizer: Tokenizer, max_length: int) -> Iterator[RowWarning]:
    for field, encoded in tokens.items():
        if len(encoded.ids) > max_length:
            yield RowWarning(
                "truncated",
                f"{field} has {len(encoded.ids)} tokens and is truncated: raise hyperparameters.maxLength",
            )
            continue
        targets = np.asarray(encoded.ids)[encoded.is_target].tolist()
        if not targets:
            continue
        ending = targets[-_ENDING:]
        after_answer = next(
            (len(ending) - index for index, token in enumerate(ending) if token in tokenizer.stop_tokens), 0
        )
        if not after_answer:
            yield RowWarning(
                "stop",
                f"{field} does not end with a stop token of the model, so the model may not learn to stop:"
                " add the token that ends a turn to eos_token_id in the model's generation_config.json",
            )
        if len(targets) - after_answer < 2:
            yield RowWarning("short", f"the answer in {field} is a single token: is it complete?")


def _find_special_tokens(example: Example, tokenizer: Tokenizer) -> Iterator[RowWarning]:
    for field, content in iterate_contents(example):
        match = tokenizer.special_token_pattern.search(content)
        if match:
            yield RowWarning("special", f"{field} contains {match.group()}, a special token of the model: remove it")


def _find_omitted_names(example: Example, sequences: dict[str, Rendered]) -> Iterator[RowWarning]:
    for field, rendered in sequences.items():
        for location, message in _iterate_messages(example, field):
            name = message.get("name")
            if name and message["role"] != "tool" and name not in rendered.text:
                yield RowWarning(
                    "name", f"the model's chat template omits {location}.name: write the name into the content"
                )


def find_omitted(example: Example, field: str, text: str) -> str:
    """Return the first part of an example that a rendered sequence does not contain; empty if it contains all.

    Args:
        example: the example.
        field: the field that the sequence ends with.
        text: the rendered sequence.
    """
    for index, tool in enumerate(example.get("tools", ())):
        if tool["function"]["name"] not in text:
            return f"tools[{index}]"
    position = 0
    for location, message in _iterate_messages(example, field):
        # Templates may move system messages anywhere; all other messages keep their order.
        keeps_order = message["role"] not in ("system", "developer")
        end = _find_end((message.get("content") or "").strip(), text, position if keeps_order else 0)
        if end is None:
            return f"{location}.content"
        position = end if keeps_order else position
        for number, call in enumerate(message.get("tool_calls") or []):
            if not _contains_call(text, call["function"]):
                return f"{location}.tool_calls[{number}]"
    return ""


def _find_end(value: str, text: str, position: int = 0) -> int | None:
    """Return where a value ends in a text, as it is or escaped for JSON; None if the text does not contain it."""
    for form in (value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1]):
        start = text.find(form, position)
        if start >= 0:
            return start + len(form)
    return None


def _contains_call(text: str, function: dict[str, Any]) -> bool:
    """Return whether a text contains a tool's name and every string among the call's arguments."""
    values = [value for value in function["arguments"].values() if isinstance(value, str)]
    return function["name"] in text and all(_find_end(value, text) is not None for value in values)


def _iterate_messages(example: Example, field: str) -> Iterator[tuple[str, Message]]:
    """Yield location and message of everything that a sequence is rendered from."""
    fields = [field] if field in ("messages", "prompt") else ["prompt", field]
    for name in fields:
        for index, message in enumerate(example.get(name, ()) if field != "text" else ()):
            yield f"{name}[{index}]", message
