"""The tokens that training and evaluation read of an example, and which of them the model learns.

The prompt of every answer is tokenized as the server does it, and the answer by itself, up to the token that ends it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_pod.requests import Message, Tool, find_answers
from finetune_pod.template import ChatTemplate, TemplateError
from finetune_pod.turns import Turn, render_continuation, render_turn

IGNORED_LABEL = -100
"""The label of a token that is not a target: the default `ignore_index` of torch's cross entropy."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sequence of tokens."""

    ids: list[int]
    is_target: NDArray[np.bool_]
    """Whether each token is a target; as long as `ids`."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The ids of the targets, IGNORED_LABEL elsewhere; as long as `ids`."""
        return np.where(self.is_target, np.asarray(self.ids, dtype=np.int64), IGNORED_LABEL)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the assistant as tokens."""

    prompt: list[int]
    ids: list[int]
    """The answer, up to and including the token that ends it."""
    turn: Turn
    stops: bool
    """Whether the answer ends with a token at which the server stops."""

    @property
    def encoded(self) -> Encoded:
        """The prompt and the answer as one sequence."""
        is_target = np.arange(len(self.prompt) + len(self.ids)) >= len(self.prompt)
        return Encoded(self.prompt + self.ids, is_target)


@dataclass(slots=True)
class EncodedExample:
    """An example as tokens."""

    sequences: dict[str, list[Encoded]] = field(default_factory=dict)
    """The sequences by the field that they end with: a conversation may have several, a prompt has no targets."""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    """The answers that are learned, by the field that contains them."""
    unlearned: dict[int, str] = field(default_factory=dict)
    """Why messages of the assistant are not learned, by their index in the conversation."""
    prompt: str = ""
    """The text of the prompt, in a conversation that of the last answer; empty for a plain text."""


class ChatEncoder:
    """Turns examples into tokens with the tokenizer and the chat template of a model."""

    def __init__(self, tokenizer: Any, stop_tokens: set[int], today: date | None = None) -> None:
        """Use the tokenizer of a model.

        Args:
            tokenizer: of transformers.
            stop_tokens: the ids of the tokens that end an answer when the model is served.
            today: the date for chat templates that print today's; None is the current date.
        """
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, today)
        self.stop_tokens = stop_tokens
        stops = sorted(filter(None, map(tokenizer.decode, sorted(stop_tokens))), key=len, reverse=True)
        self._stop_pattern = re.compile("|".join(map(re.escape, stops)) or r"(?!)")
        self._sentinel = self._find_sentinel()

    def encode(
        self, examples: Sequence[dict[str, Any]], max_piece: int | None = None
    ) -> list[EncodedExample | TemplateError]:
        """Return the tokens of prepared examples of any format, or why the chat template cannot render them.

        Args:
            examples: the examples.
            max_piece: number of tokens of the pieces into which plain texts are split; None leaves them whole.
        """
        rendered = [self._render(example) for example in examples]
        usable = (result for result in rendered if isinstance(result, _RenderedExample))
        tokens = self._tokenize(text for result in usable for text in result.iterate_texts(self._sentinel[0]))
        return [
            result if isinstance(result, TemplateError) else self._build(result, tokens, max_piece)
            for result in rendered
        ]

    def encode_answer(
        self, prompt: list[Message], answer: Message, tools: list[Tool] | None, *, thinks: bool | None = None
    ) -> Answer:
        """Return the tokens of one answer.

        Args:
            prompt: the messages before it.
            answer: the assistant's message.
            tools: the tools that the conversation declares.
            thinks: whether the prompt switches reasoning on or off; None chooses as `render_turn` does.

        Raises:
            TemplateError: the chat template cannot render it.
        """
        turn = self._render_turn(prompt, [answer], tools, None if thinks is None else (thinks,))
        return self._build_answer(turn, self._tokenize((turn.prompt, self._sentinel[0] + turn.answer)))

    def _render(self, example: dict[str, Any]) -> "_RenderedExample | TemplateError":
        try:
            if "text" in example:
                return _RenderedExample(text=example["text"])
            if "messages" in example:
                return self._render_conversation(example["messages"], example.get("tools"))
            return self._render_answers(example, example["prompt"], example.get("tools"))
        except TemplateError as error:
            return error

    def _render_conversation(self, messages: list[Message], tools: list[Tool] | None) -> "_RenderedExample":
        """Render every turn of the assistant that is to be learned."""
        turns: list[Turn] = []
        unlearned: dict[int, str] = {}
        failure = TemplateError("the assistant has no message with a weight other than 0")
        for index in find_answers(messages):
            try:
                turns.append(self._render_turn(messages[:index], [messages[index]], tools))
            except TemplateError as error:
                unlearned[index], failure = str(error), error
        if not turns:
            raise failure
        return _RenderedExample(turns={"messages": turns}, unlearned=unlearned)

    def _render_answers(
        self, example: dict[str, Any], prompt: list[Message], tools: list[Tool] | None
    ) -> "_RenderedExample":
        fields = [name for name in ("chosen", "rejected", "completion") if name in example]
        if not fields:
            return _RenderedExample(prompt=self.template.render(prompt, tools, prompts=True))
        turns: dict[str, list[Turn]] = {}
        modes: tuple[bool | None, ...] | None = None
        for name in fields:
            turn = self._render_turn(prompt, example[name], tools, modes)
            modes = (turn.thinks,)  # Both answers of a preference follow the same prompt.
            turns[name] = [turn]
        return _RenderedExample(turns=turns)

    def _render_turn(
        self,
        prompt: list[Message],
        answer: list[Message],
        tools: list[Tool] | None,
        modes: tuple[bool | None, ...] | None = None,
    ) -> Turn:
        turn = render_turn(self.template, prompt, answer, tools, modes)
        if self._stop_pattern.search(turn.answer):
            return turn
        continuation = render_continuation(self.template, [*prompt, *answer], tools, thinks=turn.thinks)
        stop = self._stop_pattern.search(continuation)
        return replace(turn, answer=turn.answer + continuation[: stop.end()]) if stop else turn

    def _tokenize(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Return the ids of each text; the texts contain all special tokens already."""
        unique = list(dict.fromkeys(texts))
        ids = self.tokenizer(unique, add_special_tokens=False)["input_ids"] if unique else []
        return dict(zip(unique, ids, strict=True))

    def _find_sentinel(self) -> tuple[str, int]:
        """Return a text to put before answers, and its number of tokens.

        Some tokenizers put a space before a text that does not follow a special token; then this is a special token.
        """
        for text in filter(None, (self.tokenizer.eos_token, self.tokenizer.bos_token)):
            alone, together = self.tokenizer(["a", text + "a"], add_special_tokens=False)["input_ids"]
            if together[-len(alone) :] != alone:
                return text, len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return "", 0

    def _build(
        self, rendered: "_RenderedExample", tokens: dict[str, list[int]], max_piece: int | None
    ) -> EncodedExample:
        if rendered.text is not None:
            return EncodedExample({"text": list(self._split_text(rendered.text, max_piece))})
        if rendered.prompt is not None:
            ids = tokens[rendered.prompt]
            return EncodedExample({"prompt": [Encoded(ids, np.zeros(len(ids), dtype=bool))]}, prompt=rendered.prompt)
        answers = {name: [self._build_answer(turn, tokens) for turn in turns] for name, turns in rendered.turns.items()}
        sequences = {name: join_answers(some) for name, some in answers.items()}
        last = next(iter(answers.values()))[-1]
        return EncodedExample(sequences, answers, rendered.unlearned, last.turn.prompt)

    def _build_answer(self, turn: Turn, tokens: dict[str, list[int]]) -> Answer:
        sentinel, length = self._sentinel
        ids = tokens[sentinel + turn.answer][length:]
        stops = [index for index, token in enumerate(ids) if token in self.stop_tokens]
        # An answer of several messages, with the results of tools between them, ends with its last stop token.
        end = stops[0 if turn.messages == 1 else -1] + 1 if stops else len(ids)
        return Answer(tokens[turn.prompt], ids[:end], turn, stops=bool(stops))

    def _split_text(self, text: str, max_piece: int | None) -> Iterator[Encoded]:
        """Yield the pieces of a plain text, which begins as in `/v1/completions` and ends with the end token."""
        ids = list(self.tokenizer(text)["input_ids"])
        if (end := self.tokenizer.eos_token_id) is not None and ids[-1:] != [end]:
            ids.append(end)
        size = max_piece or len(ids)
        for start in range(0, len(ids), size):
            piece = ids[start : start + size]
            yield Encoded(piece, np.ones(len(piece), dtype=bool))


def join_answers(answers: list[Answer]) -> list[Encoded]:
    """Return the answers of a conversation as few sequences: one that begins an answer's prompt is extended by it.

    Where the template renders a turn differently once others follow, the next answer begins a sequence of its own.
    """
    sequences: list[Encoded] = []
    for answer in answers:
        encoded = answer.encoded
        last = sequences[-1] if sequences else None
        if last and answer.prompt[: len(last.ids)] == last.ids:
            encoded.is_target[: len(last.ids)] = last.is_target
            sequences[-1] = encoded
        else:
            sequences.append(encoded)
    return sequences


@dataclass(frozen=True, slots=True)
class _RenderedExample:
    """An example as text; one of the fields is set."""

    turns: dict[str, list[Turn]] = field(default_factory=dict)
    unlearned: dict[int, str] = field(default_factory=dict)
    prompt: str | None = None
    text: str | None = None

    def iterate_texts(self, sentinel: str) -> Iterator[str]:
        """Yield all texts to tokenize, except a plain text."""
        if self.prompt is not None:
            yield self.prompt
        for turn in (turn for turns in self.turns.values() for turn in turns):
            yield from (turn.prompt, sentinel + turn.answer)
