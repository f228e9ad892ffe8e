"""The prompts that vLLM sends to a model, by vLLM's own functions, without an engine."""

import copy
from types import SimpleNamespace
from typing import Any


class ServedError(Exception):
    """The server would refuse the request."""


class ServedPrompts:
    """Renders requests as vLLM's chat completions do, with a tokenizer's chat template or that of `--chat-template`."""

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        """Use a tokenizer of transformers, and the text of `--chat-template`."""
        self._tokenizer, self._template = tokenizer, template
        self._config: Any = SimpleNamespace(
            enable_prompt_embeds=False,
            multimodal_config=None,
            revision=None,
            tokenizer_revision=None,
            code_revision=None,
            trust_remote_code=False,
            model="",
            tokenizer="",
            hf_config=SimpleNamespace(model_type="llama"),
        )

    def render(self, messages: list[Any], tools: list[Any] | None, **template_kwargs: Any) -> str:
        """Return the prompt of a chat completion.

        Raises:
            ServedError: vLLM refuses it.
        """
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        body: dict[str, Any] = {"model": "m", "messages": copy.deepcopy(messages)}
        if tools:
            body["tools"] = copy.deepcopy(tools)
        if template_kwargs:
            body["chat_template_kwargs"] = template_kwargs
        try:
            request = ChatCompletionRequest.model_validate(body)
            tool_dicts = [tool.model_dump() for tool in request.tools] if request.tools else None
            return self._render(request, request.messages, tool_dicts)
        except Exception as error:
            raise ServedError(str(error)) from error

    def render_response(self, body: dict[str, Any]) -> str:
        """Return the prompt of a request for a response, OpenAI's newer kind of requests.

        Raises:
            ServedError: vLLM refuses it.
        """
        from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
        from vllm.entrypoints.openai.responses.utils import construct_input_messages, construct_tool_dicts

        try:
            request = ResponsesRequest.model_validate(copy.deepcopy(body))
            messages = construct_input_messages(request_instructions=request.instructions, request_input=request.input)
            return self._render(request, messages, construct_tool_dicts(request.tools, request.tool_choice))
        except Exception as error:
            raise ServedError(str(error)) from error

    def _render(self, request: Any, messages: list[Any], tools: list[Any] | None) -> str:
        from vllm.renderers.chat_utils import parse_chat_messages
        from vllm.renderers.hf import resolve_chat_template_content_format, safe_apply_chat_template

        params = request.build_chat_params(self._template, "auto")
        params = params.with_defaults({"tools": tools, "tokenize": False})
        content_format = resolve_chat_template_content_format(
            self._template, tools, "auto", self._tokenizer, model_config=self._config
        )
        conversation, _, _ = parse_chat_messages(messages, self._config, content_format=content_format)
        return str(
            safe_apply_chat_template(
                self._config, self._tokenizer, conversation, **params.get_apply_chat_template_kwargs()
            )
        )

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a prompt."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
