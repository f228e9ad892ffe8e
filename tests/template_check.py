"""Compares what training reads of a conversation with what vLLM sends, for one chat template."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from conversations import Example
from finetune_pod.chat import ChatEncoder, Encoded, EncodedExample
from finetune_pod.template import TemplateError
from model.tiny import make_tiny_tokenizer
from served import ServedError, ServedPrompts

Outcome = Literal["right", "refused_as_served", "refused_needlessly", "silently_wrong", "crashes"]
_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<turn|>", "<|tool_response>", "<|end|>", "<|return|>",
    "<|call|>", "<|END_OF_TURN_TOKEN|>", "</s>", "<|endoftext|>", "<\uff5cend▁of▁sentence\uff5c>", "<|eot|>",
    "<end_of_utterance>", "<|end_of_text|>", "<|role_end|>", "<|assistant_end|>",
)  # fmt: skip
_TURN_STARTS = ("<|user|>", "<|observation|>")
"""Stop tokens of models whose templates write none after an answer."""
_CONTROL = re.compile("<[|\uff5c][^|\uff5c<>\\s]+[|\uff5c]>|<[|]?[a-zA-Z_/]+[|]?>|\\[/?[A-Z_]+\\]")
_THINKING: tuple[dict[str, Any], ...] = (
    {},
    {"enable_thinking": False, "thinking": False},
    {"enable_thinking": True, "thinking": True},
)


@dataclass(frozen=True)
class Check:
    """The outcome for one conversation, and why it is not right."""

    outcome: Outcome
    reason: str = ""


def make_template_tokenizer(directory: Path, source: str, *more: str) -> tuple[Any, set[int]]:
    """Write a tiny tokenizer with a chat template; return it and its stop tokens.

    The control tokens of the template are tokens, and so are `more`.
    """
    tokenizer = make_tiny_tokenizer(directory, source)
    control = {*_CONTROL.findall(source), *more}
    ends = [end for end in _ENDS if end in control and not (end == "<|end|>" and "<|return|>" in control)]
    ends = ends or [start for start in _TURN_STARTS if start in control]
    # What marks tool calls and reasoning is a token that most models do not count as special.
    tokenizer.add_special_tokens({"additional_special_tokens": ends, "bos_token": "<s>"})
    tokenizer.add_tokens(sorted(control - set(ends)))
    tokenizer.eos_token = ends[0] if ends else tokenizer.eos_token
    tokenizer.save_pretrained(directory)
    tokenizer.name_or_path = str(directory)  # vLLM caches what it knows of a template by this name.
    return tokenizer, {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(ends)}


class TemplateCheck:
    """Checks conversations with one chat template, whose control tokens become tokens of a tiny tokenizer."""

    def __init__(self, source: str, directory: Path) -> None:
        """Build the tokenizer and the encoder of a template; the directory is for the tokenizer."""
        self._tokenizer, self._stops = make_template_tokenizer(directory, source)
        self._encoder = ChatEncoder(self._tokenizer, self._stops)
        self.served = ServedPrompts(self._tokenizer)

    def run(self, example: Example) -> Check:
        """Return the outcome for a conversation."""
        try:
            (encoded,) = self._encoder.encode([example])
        except Exception as error:  # noqa: BLE001 - any other error is a crash
            return Check("crashes", repr(error))
        if isinstance(encoded, TemplateError):
            lost = self._find_learnable(example, range(len(example["messages"])))
            return Check("refused_needlessly", f"{lost}: {encoded}") if lost else Check("refused_as_served")
        if lost := self._find_learnable(example, encoded.unlearned):
            return Check("refused_needlessly", f"{lost}: {encoded.unlearned}")
        problem = self._find_wrong(example, encoded)
        return Check("silently_wrong", problem) if problem else Check("right")

    def _find_learnable(self, example: Example, indexes: Any) -> str:
        """Return the first of these turns that the template renders with all that it says, before and after."""
        for index in indexes:
            message = example["messages"][index]
            if message["role"] != "assistant" or message.get("weight") == 0:
                continue
            try:
                prompt = self.served.render(example["messages"][:index], example.get("tools"))
                whole = self.served.render(
                    example["messages"][: index + 1], example.get("tools"), add_generation_prompt=False
                )
            except ServedError:
                continue
            if not _find_missing(message, whole[len(prompt) - 40 :]):
                return f"messages[{index}]"
        return ""

    def _find_wrong(self, example: Example, encoded: EncodedExample) -> str:
        """Return the first difference between what is learned and what the server sends."""
        messages, tools = example["messages"], example.get("tools")
        indexes = [
            index
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and message.get("weight") != 0 and index not in encoded.unlearned
        ]
        learned = [span for sequence in encoded.sequences["messages"] for span in self._iterate_spans(sequence)]
        if len(learned) != len(indexes):
            return f"{len(learned)} answers are learned, not {len(indexes)}"
        for index, (prompt, answer) in zip(indexes, learned, strict=True):
            try:
                prompts = [
                    self.served.tokenize(self.served.render(messages[:index], tools, **options))
                    for options in _THINKING
                ]
            except ServedError as error:
                return f"messages[{index}] is learned, but the server refuses its prompt: {error}"
            if prompt not in prompts:
                return f"messages[{index}] has another prompt: {self._tokenizer.decode(prompt)!r}"
            text = self._tokenizer.decode(answer)
            omitted = encoded.answers["messages"][indexes.index(index)].turn.omitted
            if not omitted and (missing := _find_missing(messages[index], text)):
                return f"messages[{index}] is learned without {missing}: {text!r}"
            if self._has_stop(messages, index, tools) and answer[-1] not in self._stops:
                return f"messages[{index}] does not end with a stop token: {text!r}"
            if any(token in self._stops for token in answer[:-1]):
                return f"messages[{index}] is learned beyond its stop token: {text!r}"
        return ""

    def _iterate_spans(self, sequence: Encoded) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the prompt and the answer of each run of targets in a sequence; an answer ends with a stop token."""
        start = None
        for position, (token, is_target) in enumerate(zip(sequence.ids, sequence.is_target.tolist(), strict=True)):
            if is_target and start is None:
                start = position
            if start is not None and (not is_target or token in self._stops):
                end = position + is_target
                yield sequence.ids[:start], sequence.ids[start:end]
                start = None
        if start is not None:
            yield sequence.ids[:start], sequence.ids[start:]

    def _has_stop(self, messages: list[Any], index: int, tools: Any) -> bool:
        """Return whether the template writes a stop token after an answer."""
        try:
            whole = self.served.render(messages[: index + 1], tools, add_generation_prompt=False)
        except ServedError:
            return False
        return bool(set(self.served.tokenize(whole)[-6:]) & self._stops)


def _find_missing(message: dict[str, Any], text: str) -> str:
    """Return the first value of a message that a text does not contain."""
    for value in _iterate_values(message):
        forms = (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
        if not any(form in text for form in forms):
            return value
    return ""


def _iterate_values(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content") or ""
    for part in [content] if isinstance(content, str) else [piece["text"] for piece in content]:
        yield from (text.strip() for text in re.split(r"</?think>", part))
    if message.get("reasoning_content"):
        yield message["reasoning_content"]
    for call in message.get("tool_calls", ()):
        yield call["function"]["name"]
        yield from _iterate_leaves(json.loads(call["function"]["arguments"]))


def _iterate_leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _iterate_leaves(item)
    elif isinstance(value, str):
        yield value
