"""Reads, checks and completes the bodies of requests for inference, before vLLM reads them. No I/O.

What is served is what was trained: a request cannot replace the prompt that the model's chat template renders. It can
set the template's switches, and continue a message or cut a prompt if it says so.
"""

import json
from typing import Any

from finetune_pod.template import THINKING_SWITCHES

from finetune_serving.gateway.errors import RequestError
from finetune_serving.gateway.hosting import Hosting

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
RESPONSES_PATH = "/v1/responses"
TOKEN_FIELDS = {
    CHAT_PATH: ("max_tokens", "max_completion_tokens"),
    COMPLETIONS_PATH: ("max_tokens",),
    RESPONSES_PATH: ("max_output_tokens",),
}
"""The paths for inference, and the fields that limit the tokens of an answer there."""
NOT_STORED = (
    "this server stores no responses: send the whole conversation as input, and store: false or no store at all"
)

_OWN_TEMPLATE = "the model's own chat template renders every prompt, as in training"
_REFUSED_FIELDS = {
    "add_special_tokens": f"{_OWN_TEMPLATE}, and writes the special tokens: leave it out",
    "background": NOT_STORED,
    "chat_template": f"{_OWN_TEMPLATE}: leave it out, and set the template's switches in chat_template_kwargs",
    "conversation": NOT_STORED,
    "documents": "no model was trained with it: write documents into the messages",
    "ec_transfer_params": "it is internal to vLLM: leave it out",
    "function_call": "send tool_choice instead",
    "functions": "send tools instead",
    "kv_transfer_params": "it is internal to vLLM: leave it out",
    "media_io_kwargs": "this server reads text only: leave it out",
    "mm_processor_kwargs": "this server reads text only: leave it out",
    "previous_input_messages": "send them as input",
    "previous_response_id": NOT_STORED,
    "prompt_embeds": "send the prompt as text or as token ids",
    "store": NOT_STORED,
    "vllm_xargs": "it is internal to vLLM: leave it out",
    "web_search_options": "this server does not search the web: leave it out, or offer a function as a tool",
}
"""Fields that a request must not set, and what to do instead."""
_ALLOWED_IN_COMPLETIONS = {"add_special_tokens"}
"""A completion has no chat template."""

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
BOOLEAN_SWITCHES = (
    *THINKING_SWITCHES,
    "preserve_thinking",
    "truncate_history_thinking",
    "low_effort",
    "medium_effort",
)
EFFORT_SWITCHES = ("reasoning_effort", "reasoning_strength")
"""Variables that real chat templates read and that change nothing but the reasoning, see `trl/chat_templates`."""


def prepare_request(path: str, body: bytes, hosting: Hosting) -> dict[str, Any]:
    """Return the request to one of the paths of TOKEN_FIELDS, checked and with the server's limits.

    Raises:
        RequestError: the request is invalid, or asks for what this server does not do.
    """
    request = _read_request(body)
    for name, advice in _REFUSED_FIELDS.items():
        if request.get(name) and not (path == COMPLETIONS_PATH and name in _ALLOWED_IN_COMPLETIONS):
            raise RequestError(400, f"{name} is not supported: {advice}", param=name)
    _check_tools(request, parses_calls=hosting.parses_tool_calls)
    _check_template_switches(request.get("chat_template_kwargs", {}))
    if path == RESPONSES_PATH:
        request = _drop_empty_messages(request) | {"store": False}
    return _limit_tokens(request, TOKEN_FIELDS[path], hosting)


def _read_request(body: bytes) -> dict[str, Any]:
    """Return the request without null fields: to OpenAI they are the same as omitted ones, vLLM refuses some."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not valid JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise RequestError(400, "the body must be a JSON object with the field model, a string", param="model")
    return {name: value for name, value in request.items() if value is not None}


def _check_tools(request: dict[str, Any], *, parses_calls: bool) -> None:
    """Refuse tools that the client does not run, and all tools if vLLM would return their calls as text."""
    tools, choice = request.get("tools"), request.get("tool_choice")
    for tool in tools if isinstance(tools, list) else []:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            message = f"the tool type {kind!r:.100} is not supported: this server runs no tools; offer a function"
            raise RequestError(400, message, param="tools")
    if isinstance(choice, dict) and choice.get("type") != "function":
        message = "tool_choice must be none, auto, required or an object of the type function"
        raise RequestError(400, message, param="tool_choice")
    if tools and choice != "none" and not parses_calls:
        message = "this server does not read tool calls: its ModelServer needs engine.toolCallParser"
        raise RequestError(400, message, param="tools")


def _check_template_switches(switches: Any) -> None:
    """Refuse all variables of chat templates but the switches of the reasoning."""
    allowed = f"{', '.join(BOOLEAN_SWITCHES)} (true or false), {', '.join(EFFORT_SWITCHES)} ({', '.join(_EFFORTS)})"
    if not isinstance(switches, dict):
        message = f"chat_template_kwargs must be an object with fields out of {allowed}"
        raise RequestError(400, message, param="chat_template_kwargs")
    for name, value in switches.items():
        is_valid = isinstance(value, bool) if name in BOOLEAN_SWITCHES else value in _EFFORTS
        if not is_valid or name not in (*BOOLEAN_SWITCHES, *EFFORT_SWITCHES):
            message = f"chat_template_kwargs: {name!r:.100} with this value is not supported; allowed are {allowed}"
            raise RequestError(400, message, param="chat_template_kwargs")


def _drop_empty_messages(request: dict[str, Any]) -> dict[str, Any]:
    """Return the request for a response without messages that have no content: vLLM sends them, but fails on them."""
    items = request.get("input")
    if not isinstance(items, list):
        return request
    return request | {"input": [item for item in items if not isinstance(item, dict) or item.get("content") != []]}


def _limit_tokens(request: dict[str, Any], names: tuple[str, ...], hosting: Hosting) -> dict[str, Any]:
    """Return the request, with the server's maximum of tokens if it sets none.

    Raises:
        RequestError: the request sets more than the maximum.
    """
    given = {name: request[name] for name in names if name in request}
    for name, value in given.items():
        # vLLM also accepts numbers in strings.
        if not isinstance(value, int):
            raise RequestError(400, f"{name} must be an integer", param=name)
    maximum = hosting.limits.max_tokens
    if maximum is None:
        return request
    for name, value in given.items():
        if value > maximum:
            raise RequestError(400, f"{name} must be at most {maximum} on this server", param=name)
    # vLLM refuses more tokens than the model's length.
    return request if given else request | {names[0]: min(maximum, hosting.max_model_len or maximum)}


def switch_thinking_off(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return a request with thinking switched off in its chat template, unless it sets the switch or an effort."""
    switches = request.get("chat_template_kwargs", {})
    effort = request.get("reasoning_effort")
    if path == RESPONSES_PATH:
        reasoning = request.get("reasoning")
        effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    if path == COMPLETIONS_PATH or effort is not None or switches.keys() & set(EFFORT_SWITCHES):
        return request  # vLLM and the template take the switch from the effort.
    return request | {"chat_template_kwargs": dict.fromkeys(THINKING_SWITCHES, False) | switches}


def include_usage(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the request; if it is for a stream, with the option to end the stream with its usage."""
    if not request.get("stream") or path == RESPONSES_PATH:  # A stream of a response always has its usage.
        return request
    options = request.get("stream_options")
    return request | {"stream_options": (options if isinstance(options, dict) else {}) | {"include_usage": True}}


def has_include_usage(path: str, request: dict[str, Any]) -> bool:
    """Return whether the client itself gets the usage at the end of its stream."""
    options = request.get("stream_options")
    return path == RESPONSES_PATH or (isinstance(options, dict) and bool(options.get("include_usage")))
