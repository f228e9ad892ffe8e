"""A model's chat template, rendered as vLLM renders it."""

import json
from datetime import date
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from finetune_pod.content_format import iterates_content
from finetune_pod.requests import Message, Tool, normalize_messages, normalize_tools

THINKING_SWITCHES = ("enable_thinking", "thinking")
"""The variables with which chat templates switch reasoning on and off."""
_NOW = "strftime_now"
"""The function of transformers with which chat templates print the current date."""


class TemplateError(Exception):
    """The model's chat template cannot render a conversation, or omits a part of it."""


class ChatTemplate:
    """The chat template of a transformers tokenizer. A tokenizer may have a second one for conversations with tools."""

    def __init__(self, tokenizer: Any, today: date | None = None) -> None:
        """Use the template of a tokenizer, which must have one.

        Args:
            tokenizer: of transformers.
            today: the date for templates that print today's; None is the current date.
        """
        self._tokenizer = tokenizer
        self._today = today
        self._traits: dict[str, _Traits] = {}

    def render(
        self,
        messages: list[Message],
        tools: list[Tool] | None,
        *,
        prompts: bool,
        thinks: bool | None = None,
        encodes_arguments: bool = False,
    ) -> str:
        """Return messages and tools as text.

        Args:
            messages: in OpenAI's format.
            tools: likewise; None or empty without tools.
            prompts: whether the text ends with the generation prompt, which starts an answer of the assistant.
            thinks: switches reasoning on or off in templates that have a switch; None keeps the template's default.
            encodes_arguments: passes the arguments of tool calls as JSON, for templates that fail on objects. Servers
                do not, so this is only for an answer.

        Raises:
            TemplateError: the template fails.
        """
        given = normalize_tools(tools)
        try:
            source = self._tokenizer.get_chat_template(None, tools=given)
            traits = self._get_traits(source)
            conversation = normalize_messages(
                messages, has_content_parts=traits.iterates_content, has_developer=traits.has_developer
            )
            if encodes_arguments:
                conversation = [_encode_arguments(message) for message in conversation]
            variables: dict[str, Any] = {} if thinks is None else dict.fromkeys(traits.switches, thinks)
            if self._today and traits.prints_date:
                variables[_NOW] = self._today.strftime
            return str(
                self._tokenizer.apply_chat_template(
                    conversation,
                    tools=given,
                    chat_template=source,
                    tokenize=False,
                    add_generation_prompt=prompts,
                    **variables,
                )
            )
        except TemplateError:
            raise
        except Exception as error:
            raise TemplateError(f"the chat template fails: {error}") from error

    def has_switch(self, tools: list[Tool] | None) -> bool:
        """Return whether reasoning can be switched on and off.

        Raises:
            TemplateError: the template is not Jinja.
        """
        return bool(self._get_traits(self._tokenizer.get_chat_template(None, tools=tools or None)).switches)

    @property
    def prints_date(self) -> bool:
        """Whether the template prints today's date.

        Raises:
            TemplateError: the template is not Jinja.
        """
        return self._get_traits(self._tokenizer.get_chat_template()).prints_date

    def _get_traits(self, source: str) -> "_Traits":
        if source not in self._traits:
            try:
                self._traits[source] = _Traits(source)
            except TemplateSyntaxError as error:
                raise TemplateError(f"the chat template fails: {error}") from error
        return self._traits[source]


def _encode_arguments(message: Message) -> Message:
    if "tool_calls" not in message:
        return message
    calls = [
        call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return message | {"tool_calls": calls}


class _Traits:
    """What the source of a template says about it."""

    def __init__(self, source: str) -> None:
        tree = ENVIRONMENT.parse(source)
        self.iterates_content = iterates_content(tree)
        self.has_developer = '"developer"' in source or "'developer'" in source
        variables = meta.find_undeclared_variables(tree)
        self.switches = [name for name in THINKING_SWITCHES if name in variables]
        self.prints_date = _NOW in variables


class _Generation(Extension):
    """Parses transformers' tag `generation`, which marks the assistant's text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """Return a block with the content of the tag."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


ENVIRONMENT = Environment(extensions=["jinja2.ext.loopcontrols", _Generation])  # noqa: S701 - only parses
