"""Turns held-out examples into token ids: the prompt to answer, and the sequences whose likelihoods are measured."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from finetune_pod.chat import Rendered, apply_template, encode, render_all
from finetune_pod.measurable import Example, get_answer, get_reference, get_shape, get_text
from finetune_pod.toolcalls import ToolFormat, learn_format


@dataclass(frozen=True)
class Sequence:
    """Token ids, and which of them are targets: tokens whose likelihood counts."""

    ids: list[int]
    is_target: list[bool]


@dataclass(frozen=True)
class Question:
    """One held-out example as token ids."""

    example: Example
    expected: Sequence | None = None
    """The text that the model should find likely: a conversation with its answers, a preference's chosen answer, a
    completion with a label, or plain text."""
    rejected: Sequence | None = None
    """The answer that the model should find less likely than the chosen one."""
    prompt: tuple[int, ...] = ()
    """Token ids of the prompt of the last answer; empty if there is nothing to answer, as in plain text."""
    reference: str = ""
    """The text that an answer is compared with."""

    @property
    def length(self) -> int:
        """Number of tokens of the longest sequence."""
        return max(len(self.prompt), *(len(sequence.ids) for sequence in (self.expected, self.rejected) if sequence), 0)


class PromptBuilder:
    """Builds questions with the base model's tokenizer and chat template, which are used for every model."""

    def __init__(self, tokenizer: Any) -> None:
        """Use a tokenizer of transformers."""
        self._tokenizer = tokenizer

    def build_question(self, example: Example) -> Question:
        """Return the question of a held-out example.

        Raises:
            TemplateError: the chat template cannot render the example.
        """
        tools = example.get("tools")
        rendered = render_all(
            example,
            lambda messages, add_generation_prompt: apply_template(
                self._tokenizer, messages, tools, add_generation_prompt
            ),
            self._tokenizer.eos_token or "",
        )
        if "text" in rendered:
            return Question(example, self._encode(rendered["text"]))
        if "prompt" in rendered:
            prompt = self._ids(rendered["prompt"].text)
            return Question(example, prompt=prompt, reference=get_text(get_answer(example)))
        expected = next(rendered[field] for field in ("messages", "chosen", "completion") if field in rendered)
        start, end = expected.spans[-1]
        reference = self._tokenizer.decode(self._ids(expected.text[start:end]), skip_special_tokens=True).strip()
        return Question(
            example,
            self._encode(expected),
            self._encode(rendered["rejected"]) if "rejected" in rendered else None,
            self._ids(expected.text[:start]),
            # A completion with the label false is not a reference.
            reference if example.get("label", True) else "",
        )

    def learn_tool_format(self) -> ToolFormat | None:
        """Return how the model writes tool calls; None if its chat template does not support them."""
        return learn_format(partial(apply_template, self._tokenizer))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode(self, rendered: Rendered) -> Sequence:
        (encoded,) = encode(self._tokenizer, [rendered])
        return Sequence(encoded.ids, encoded.is_target.tolist())


def build_grader_fields(question: Question) -> dict[str, Any]:
    """Return the reference fields that graders compare an answer with."""
    fields = get_reference(question.example)
    return fields if get_shape(question.example) == "Prompt" else fields | {"answer": question.reference}
