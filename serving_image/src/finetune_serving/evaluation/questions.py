"""Turns held-out examples into token ids: the prompt to answer, and the sequences whose likelihoods are measured."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from finetune_pod.chat import ChatEncoder, Encoded
from finetune_pod.measurable import Example, get_answer, get_reference, get_shape, get_text
from finetune_pod.template import TemplateError
from finetune_pod.toolcalls import ToolFormat, learn_format
from finetune_pod.turns import read_content


@dataclass(frozen=True)
class Sequence:
    """Token ids, and which of them are targets: tokens whose likelihood counts."""

    ids: list[int]
    is_target: list[bool]


@dataclass(frozen=True)
class Question:
    """One held-out example as token ids."""

    example: Example
    expected: tuple[Sequence, ...] = ()
    """What the model should find likely: a conversation with its answers, a preference's chosen answer, a completion
    with a label, or plain text. A conversation has several sequences if its turns cannot share one."""
    rejected: Sequence | None = None
    """The answer that the model should find less likely than the chosen one."""
    prompt: tuple[int, ...] = ()
    """Token ids of the prompt of the last answer; empty if there is nothing to answer, as in plain text."""
    reference: str = ""
    """The text that an answer is compared with."""

    @property
    def length(self) -> int:
        """Number of tokens of the longest sequence."""
        sequences = (*self.expected, *((self.rejected,) if self.rejected else ()))
        return max(len(self.prompt), *(len(sequence.ids) for sequence in sequences), 0)


class PromptBuilder:
    """Builds questions with the base model's tokenizer and chat template, which are used for every model."""

    def __init__(self, tokenizer: Any, stop_tokens: set[int], today: date | None = None) -> None:
        """Use a tokenizer of transformers, the ids of its stop tokens, and a date, as ChatEncoder does."""
        self._encoder = ChatEncoder(tokenizer, stop_tokens, today)

    def build_question(self, example: Example) -> Question:
        """Return the question of a held-out example.

        Raises:
            TemplateError: the chat template cannot render the example.
        """
        (encoded,) = self._encoder.encode([example])
        if isinstance(encoded, TemplateError):
            raise encoded
        sequences = {field: tuple(map(_to_sequence, some)) for field, some in encoded.sequences.items()}
        if "text" in sequences:
            return Question(example, sequences["text"])
        if "prompt" in sequences:
            (prompt,) = sequences["prompt"]
            return Question(example, prompt=tuple(prompt.ids), reference=get_text(get_answer(example)))
        field = next(field for field in ("messages", "chosen", "completion") if field in sequences)
        answer = encoded.answers[field][-1]
        reference = read_content(self._encoder.tokenizer, answer.ids[:-1] if answer.stops else answer.ids)
        return Question(
            example,
            sequences[field],
            sequences["rejected"][0] if "rejected" in sequences else None,
            tuple(answer.prompt),
            # A completion with the label false is not a reference.
            reference if example.get("label", True) else "",
        )

    def learn_tool_format(self) -> ToolFormat | None:
        """Return how the model writes tool calls; None if its chat template does not support them."""
        return learn_format(self._encoder.template.render)


def _to_sequence(encoded: Encoded) -> Sequence:
    return Sequence(encoded.ids, encoded.is_target.tolist())


def build_grader_fields(question: Question) -> dict[str, Any]:
    """Return the reference fields that graders compare an answer with."""
    fields = get_reference(question.example)
    return fields if get_shape(question.example) == "Prompt" else fields | {"answer": question.reference}
