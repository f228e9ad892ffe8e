"""Counts the tokens of examples as training reads them, and finds what is not learned."""

from collections.abc import Iterator
from dataclasses import dataclass

from finetune_pod.chat import Answer, Encoded, EncodedExample
from finetune_pod.requests import find_answers
from finetune_pod.template import TemplateError

from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.omissions import find_omissions
from finetune_trainer.prepare.row_issues import RowError, RowWarning
from finetune_trainer.prepare.row_warnings import iterate_contents
from finetune_trainer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """The tokens of one training sample: a sequence of a conversation or of a text, or both answers of a preference."""

    tokens: int
    """Of all its sequences."""
    longest: int
    """Of its longest sequence."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """How many tokens an example has, or why it cannot be used."""

    samples: tuple[SampleCounts, ...] = ()
    targets: int = 0
    """Target tokens that are not truncated."""
    learned: int = 0
    """Answers of the assistant that are learned."""
    unlearned: int = 0
    """Answers of the assistant that cannot be learned."""
    thinking_off: bool = False
    """Whether all answers are learned with thinking switched off."""
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
    encoded = tokenizer.encoder.encode(examples, max_length)
    return [
        _count(tokenizer, max_length, example, result, train_on_prompts=train_on_prompts)
        for example, result in zip(examples, encoded, strict=True)
    ]


def _count(
    tokenizer: Tokenizer,
    max_length: int,
    example: Example,
    encoded: EncodedExample | TemplateError,
    *,
    train_on_prompts: bool,
) -> TokenCounts:
    if isinstance(encoded, TemplateError):
        message = f"{encoded}: change the row, or use a model whose chat template renders it"
        return TokenCounts(error=RowError("template", message))
    fields = [(field, sequence) for field, sequences in encoded.sequences.items() for sequence in sequences]
    targets = [
        min(len(sequence.ids), max_length) if train_on_prompts else _count_targets(sequence, max_length)
        for _, sequence in fields
    ]
    if error := _check_lengths(fields, targets, max_length):
        return TokenCounts(error=error)
    if _is_equal_pair(encoded, max_length):
        message = "chosen and rejected are identical once they are truncated: raise hyperparameters.maxLength"
        return TokenCounts(error=RowError("equal", message))
    lengths = [len(sequence.ids) for _, sequence in fields]
    is_pair = "chosen" in encoded.sequences
    samples = (
        [SampleCounts(sum(lengths), max(lengths))] if is_pair else [SampleCounts(length, length) for length in lengths]
    )
    warnings = (
        *_find_control_tokens(example, tokenizer),
        *_describe_unlearned(encoded),
        *_find_omissions(tokenizer, example, encoded),
        *_check_endings(fields, encoded, max_length),
    )
    answers = [answer for some in encoded.answers.values() for answer in some]
    return TokenCounts(
        samples=tuple(samples),
        targets=sum(targets),
        learned=len(answers),
        unlearned=len(encoded.unlearned),
        thinking_off=bool(answers) and all(answer.turn.thinks is False for answer in answers),
        warnings=warnings,
    )


def _count_targets(sequence: Encoded, max_length: int) -> int:
    return int(sequence.is_target[:max_length].sum())


def _check_lengths(fields: list[tuple[str, Encoded]], targets: list[int], max_length: int) -> RowError | None:
    """Return why an example is too long: for a preference one answer decides, for a conversation all of them."""
    for field, sequence in fields:
        if field == "prompt" and len(sequence.ids) >= max_length:
            return RowError(
                "truncated",
                f"prompt has {len(sequence.ids)} tokens, which leaves none for an answer:"
                " raise hyperparameters.maxLength",
            )
    learns = [count > 0 for (field, _), count in zip(fields, targets, strict=True) if field != "prompt"]
    needs_all = any(field in ("chosen", "rejected") for field, _ in fields)
    if learns and not (all(learns) if needs_all else any(learns)):
        return RowError(
            "truncated", f"the first {max_length} tokens contain no part of an answer: raise hyperparameters.maxLength"
        )
    return None


def _is_equal_pair(encoded: EncodedExample, max_length: int) -> bool:
    """Return whether both answers of a preference have the same tokens within the maximum length."""
    pair = [
        encoded.sequences[field][0].ids[:max_length] for field in ("chosen", "rejected") if field in encoded.sequences
    ]
    return len(pair) == 2 and pair[0] == pair[1]


def _describe_unlearned(encoded: EncodedExample) -> Iterator[RowWarning]:
    learned = encoded.answers.get("messages", [])
    if encoded.unlearned:
        index, reason = next(iter(encoded.unlearned.items()))
        total = len(learned) + len(encoded.unlearned)
        yield RowWarning("unlearned", f"{len(learned)} of {total} answers are learned: messages[{index}]: {reason}")
    every_answer = [answer for answers in encoded.answers.values() for answer in answers]
    if any(answer.turn.thinks is False for answer in every_answer):
        yield RowWarning(
            "thinking",
            "an answer has no reasoning, but the model's generation prompt begins a thought: it is trained with"
            " thinking switched off, and if that is so for all answers, the server switches it off; otherwise send"
            ' requests with "chat_template_kwargs": {"enable_thinking": false}',
        )
    for answer in every_answer:
        if answer.turn.omitted:
            fields = ", ".join(part.rpartition(".")[2] for part in answer.turn.omitted)
            yield RowWarning(
                "omitted",
                f"the model's chat template has no place for {fields} in an answer, so it is not learned: remove it, or"
                " use a model that writes it",
            )
            return


def _find_omissions(tokenizer: Tokenizer, example: Example, encoded: EncodedExample) -> Iterator[RowWarning]:
    if "text" in example:
        return iter(())
    answers = [index for index in find_answers(example.get("messages", [])) if index not in encoded.unlearned]
    return find_omissions(tokenizer.encoder.template, example, encoded.prompt, max(answers, default=0))


def _check_endings(fields: list[tuple[str, Encoded]], encoded: EncodedExample, max_length: int) -> Iterator[RowWarning]:
    for field, sequence in fields:
        if len(sequence.ids) > max_length:
            yield RowWarning(
                "truncated",
                f"{field} has {len(sequence.ids)} tokens and is truncated: raise hyperparameters.maxLength",
            )
            return
    for field, answers in encoded.answers.items():
        yield from _check_answers(field, answers)


def _check_answers(field: str, answers: list[Answer]) -> Iterator[RowWarning]:
    if not all(answer.stops for answer in answers):
        yield RowWarning(
            "stop",
            f"{field} does not end with a stop token of the model, so the model may not learn to stop:"
            " add the token that ends a turn to eos_token_id in the model's generation_config.json, or end answers with"
            " {{ eos_token }} in model.chatTemplate",
        )
    if any(len(answer.ids) - answer.stops < 2 for answer in answers):
        yield RowWarning("short", f"the answer in {field} is a single token: is it complete?")


def _find_control_tokens(example: Example, tokenizer: Tokenizer) -> Iterator[RowWarning]:
    for field, content in iterate_contents(example):
        match = tokenizer.control_token_pattern.search(content)
        if match:
            yield RowWarning("special", f"{field} contains {match.group()}, a special token of the model: remove it")
