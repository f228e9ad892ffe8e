"""Turns held-out examples into token ids: what should be likely, and what is asked."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from finetune_pod.chat import Rendered, apply_template, encode, render_all
from finetune_pod.measurable import Example, answer_of, reference_of, shape_of, text_of
from finetune_pod.toolcalls import ToolFormat, learn_format


@dataclass(frozen=True)
class Sequence:
    """Token ids, and which of them are judged."""

    ids: list[int]
    is_target: list[bool]


@dataclass(frozen=True)
class Question:
    """One held-out example, ready for the engine."""

    example: Example
    likely: Sequence | None = None
    """What should be likely: what the assistant wrote, the chosen answer, the judged completion; of plain text all."""
    rejected: Sequence | None = None
    """The answer that should be less likely than the chosen one."""
    prompt: tuple[int, ...] = ()
    """Token ids up to where the answer begins; none where there is nothing to answer."""
    reference: str = ""
    """What an answer is compared with."""

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(self.prompt), *(len(one.ids) for one in (self.likely, self.rejected) if one), 0)


class Asker:
    """The base model's tokenizer and chat template: every model is asked in the same words."""

    def __init__(self, tokenizer: Any) -> None:
        """Take a tokenizer of transformers."""
        self._tokenizer = tokenizer

    def build_question(self, example: Example) -> Question:
        """Render and tokenise a held-out example.

        Raises:
            TemplateError: the chat template cannot render it.
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
            return Question(example, prompt=prompt, reference=text_of(answer_of(example)))
        likely = next(rendered[field] for field in ("messages", "chosen", "completion") if field in rendered)
        begin, end = likely.spans[-1]
        reference = self._tokenizer.decode(self._ids(likely.text[begin:end]), skip_special_tokens=True).strip()
        return Question(
            example,
            self._encode(likely),
            self._encode(rendered["rejected"]) if "rejected" in rendered else None,
            self._ids(likely.text[:begin]),
            # What was judged bad is nothing to compare an answer with.
            reference if example.get("label", True) else "",
        )

    def learn_tool_format(self) -> ToolFormat | None:
        """Return how the model writes calls of tools; None where its template has no such thing."""
        return learn_format(partial(apply_template, self._tokenizer))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode(self, rendered: Rendered) -> Sequence:
        (encoded,) = encode(self._tokenizer, [rendered])
        return Sequence(encoded.ids, encoded.is_target.tolist())


def graders_compare_with(question: Question) -> dict[str, Any]:
    """Return the fields that graders compare an answer with."""
    fields = reference_of(question.example)
    return fields if shape_of(question.example) == "Prompt" else fields | {"answer": question.reference}
