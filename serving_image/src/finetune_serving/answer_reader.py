"""Reads an answer with vLLM's parsers as vLLM's server does, without an engine: reasoning, content and tool calls."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune_api.modelserver import NO_PARSER
from finetune_pod.chat import Answer
from finetune_pod.requests import Message, Tool
from finetune_pod.template import THINKING_SWITCHES
from finetune_pod.toolcalls import Call

_NOT_DECODED = "\ufffd"
"""What a tokenizer decodes the first bytes of a character to."""


@dataclass(frozen=True)
class ReadAnswer:
    """What a client gets of an answer. White space around the texts is removed."""

    reasoning: str
    content: str
    calls: tuple[Call, ...]


class AnswerReader:
    """A pair of parsers for one model."""

    def __init__(self, tokenizer: Any, stop_tokens: set[int], tool_call_parser: str, reasoning_parser: str) -> None:
        """Load the parsers.

        Args:
            tokenizer: the model's, of transformers.
            stop_tokens: the ids of the tokens that end an answer.
            tool_call_parser: name of vLLM's parser for tool calls, or `None`.
            reasoning_parser: name of vLLM's parser for reasoning, or `None`.

        Raises:
            Exception: vLLM cannot use the parsers with this tokenizer.
        """
        from vllm.parser.parser_manager import ParserManager

        self._tokenizer, self._stop_tokens = tokenizer, stop_tokens
        self._parser_class: Any = ParserManager.get_parser(
            tool_parser_name=None if tool_call_parser == NO_PARSER else tool_call_parser,
            reasoning_parser_name=None if reasoning_parser == NO_PARSER else reasoning_parser,
            enable_auto_tools=True,
        )
        if self._parser_class is not None:
            self._parser_class(tokenizer)

    def read(self, answer: Answer, prompt: list[Message], tools: list[Tool] | None, *, stream: bool) -> ReadAnswer:
        """Return what a client gets of an answer.

        Args:
            answer: the answer as the model writes it.
            prompt: the messages of the request.
            tools: the tools of the request.
            stream: whether the client reads a stream, whose tokens are parsed one by one.

        Raises:
            Exception: the parsers fail.
            ValueError: the arguments of a call are not JSON.
        """
        request = self._build_request(answer, prompt, tools)
        return self._read_stream(answer, request) if stream else self._read_whole(answer, request)

    def _build_request(self, answer: Answer, prompt: list[Message], tools: list[Tool] | None) -> Any:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        body: dict[str, Any] = {"model": "", "messages": prompt}
        if tools:
            body["tools"] = tools
        if answer.turn.thinks is not None:
            body["chat_template_kwargs"] = dict.fromkeys(THINKING_SWITCHES, answer.turn.thinks)
        request = ChatCompletionRequest.model_validate(body)
        if self._parser_class.reasoning_parser_cls is not None or tools:
            request = self._open_parser(request).adjust_request(request)
        return request

    def _open_parser(self, request: Any) -> Any:
        options = request.build_chat_params(None, "auto").chat_template_kwargs
        return self._parser_class(self._tokenizer, request.tools, chat_template_kwargs=options)

    def _read_whole(self, answer: Answer, request: Any) -> ReadAnswer:
        parser = self._open_parser(request)
        parser.set_prompt_token_ids(answer.prompt)
        text = "".join(delta for delta, _ in self._iterate_deltas(answer, request))
        reasoning, content, calls = parser.parse(
            text, request, enable_auto_tools=True, model_output_token_ids=answer.ids
        )
        return _build_answer(reasoning, content, [(call.name, call.arguments) for call in calls or ()])

    def _read_stream(self, answer: Answer, request: Any) -> ReadAnswer:
        parser = self._open_parser(request)
        reasoning = content = ""
        calls: dict[int, tuple[str, str]] = {}
        deltas = list(self._iterate_deltas(answer, request))
        for number, (text, token) in enumerate(deltas, 1):
            delta = parser.parse_delta(
                text, [token], request, prompt_token_ids=answer.prompt, finished=number == len(deltas)
            )
            reasoning += (delta and delta.reasoning) or ""
            content += (delta and delta.content) or ""
            for call in (delta and delta.tool_calls) or ():
                name, arguments = calls.get(call.index, ("", ""))
                if call.function:
                    name, arguments = name + (call.function.name or ""), arguments + (call.function.arguments or "")
                calls[call.index] = name, arguments
        return _build_answer(reasoning, content, [calls[index] for index in sorted(calls)])

    def _iterate_deltas(self, answer: Answer, request: Any) -> Iterator[tuple[str, int]]:
        """Yield each token of an answer after its text, which is empty for the stop token and within a character."""
        length = 0
        for number, token in enumerate(answer.ids, 1):
            text = self._tokenizer.decode(answer.ids[:number], skip_special_tokens=request.skip_special_tokens)
            if token in self._stop_tokens or text.endswith(_NOT_DECODED):
                yield "", token
            else:
                yield text[length:], token
                length = len(text)


def _build_answer(reasoning: str | None, content: str | None, calls: list[tuple[str, str]]) -> ReadAnswer:
    return ReadAnswer(
        (reasoning or "").strip(),
        (content or "").strip(),
        tuple(Call(name, json.loads(arguments)) for name, arguments in calls),
    )
