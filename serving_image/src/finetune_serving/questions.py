"""Turns held-out examples into token ids: what should be likely, and what is asked."""

from dataclasses import dataclass
from typing import Any

from finetune_api.chat import Message, Rendered, render_example
from finetune_api.measurable import Example, answer_of, reference_of, shape_of, text_of
from finetune_api.toolcalls import ToolFormat, learn_format


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
        match shape_of(example):
            case "Text":
                return Question(example, self._encode(self._render(example)))
            case "Prompt":
                text = self._apply(example["prompt"], None, opening=True)
                return Question(example, prompt=self._ids(text), reference=text_of(answer_of(example)))
            case "Pair":
                rejected = self._encode(self._render(_join(example, "rejected")))
                return self._ask(example, _join(example, "chosen"), rejected)
            case "Judged":
                return self._ask(example, _join(example, "completion"), None)
        return self._ask(example, example, None)

    def learn_tool_format(self) -> ToolFormat | None:
        """Return how the model writes calls of tools; None where its template has no such thing."""
        return learn_format(lambda messages, tools, opening: self._apply(messages, tools, opening=opening))

    def _ask(self, example: Example, conversation: Example, rejected: Sequence | None) -> Question:
        rendered = self._render(conversation)
        begin, end = rendered.spans[-1]
        reference = self._tokenizer.decode(self._ids(rendered.text[begin:end]), skip_special_tokens=True).strip()
        if shape_of(example) == "Judged" and not example["label"]:
            reference = ""
        return Question(example, self._encode(rendered), rejected, self._ids(rendered.text[:begin]), reference)

    def _render(self, conversation: Example) -> Rendered:
        def render(messages: list[Message], opening: bool) -> str:  # noqa: FBT001 - finetune_api.chat.Render
            return self._apply(messages, conversation.get("tools"), opening=opening)

        return render_example(conversation, render, self._tokenizer.eos_token or "")

    def _apply(self, messages: list[Message], tools: Any, *, opening: bool) -> str:
        return str(
            self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=opening)
        )

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode(self, rendered: Rendered) -> Sequence:
        encoded = self._tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
        targets = [_is_inside(begin, rendered) for begin, _ in encoded["offset_mapping"]]
        return Sequence(encoded["input_ids"], targets)


def graders_compare_with(question: Question) -> dict[str, Any]:
    """Return the fields that graders compare an answer with."""
    fields = reference_of(question.example)
    return fields if shape_of(question.example) == "Prompt" else fields | {"answer": question.reference}


def _join(example: Example, answer: str) -> Example:
    """Return prompt and answer as a conversation; of earlier turns of the assistant nothing is judged."""
    prompt = [one | {"weight": 0} if one["role"] == "assistant" else one for one in example["prompt"]]
    return {"messages": [*prompt, *example[answer]], "tools": example.get("tools")}


def _is_inside(begin: int, rendered: Rendered) -> bool:
    return any(start <= begin < end for start, end in rendered.spans)
