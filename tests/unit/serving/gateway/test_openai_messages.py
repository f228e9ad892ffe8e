"""Request and response bodies of OpenAI's API."""

import json
from typing import Any

import pytest
from finetune_api.access import RequestLimits
from finetune_serving.gateway.openai_messages import (
    EventStream,
    RequestError,
    Usage,
    build_error,
    build_model_list,
    has_include_usage,
    include_usage,
    limit_tokens,
    read_request,
    read_usage,
    switch_thinking_off,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": 5}', b"[" * 100_000])
def test_a_body_without_a_model_is_refused_in_openais_shape(body: bytes) -> None:
    with pytest.raises(RequestError) as error:
        read_request(body)
    assert json.loads(build_error(error.value))["error"]["code"] == 400


def test_models_are_listed_in_openais_shape() -> None:
    models = json.loads(build_model_list(["base", "bot"], 1, 2048))["data"]
    assert [(model["id"], model["max_model_len"]) for model in models] == [("base", 2048), ("bot", 2048)]


CHUNK = b'data: {"id":"1","model":"bot--0123456789ab","choices":[{"delta":{"content":"\\"model\\":"}}]}'
TOTAL = b'data: {"id":"1","model":"bot--0123456789ab","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
DONE = b"data: [DONE]"


@given(st.lists(st.integers(1, 60), max_size=20), st.booleans())
def test_events_carry_the_public_name_wherever_a_stream_is_cut(cuts: list[int], keep_usage: bool) -> None:
    events = [CHUNK, CHUNK, TOTAL, DONE]
    rest = b"".join(event + b"\n\n" for event in events)
    stream = EventStream("bot--0123456789ab", "bot", keep_usage=keep_usage)
    sent = b""
    for cut in cuts:
        sent += stream.feed(rest[:cut], last=False)
        rest = rest[cut:]
    sent += stream.feed(rest, last=True)
    kept = [event for event in events if keep_usage or event is not TOTAL]
    assert sent == b"".join(event + b"\n\n" for event in kept).replace(b"bot--0123456789ab", b"bot")
    assert stream.usage == Usage(7, 3)


def test_the_usage_is_requested_in_streams_only() -> None:
    assert include_usage({"model": "bot"}) == {"model": "bot"}
    request = include_usage({"stream": True, "stream_options": {"other": 1}})
    assert request["stream_options"] == {"other": 1, "include_usage": True}
    assert include_usage({"stream": True, "stream_options": None})["stream_options"] == {"include_usage": True}
    assert not has_include_usage({"stream_options": {"include_usage": False}})
    assert has_include_usage({"stream_options": {"include_usage": True}})


@pytest.mark.parametrize("body", [b"", b'{"usage":', b'{"usage":null}', b'{"usage":{}}', b'["usage":]'])
def test_a_response_without_a_valid_usage_has_none(body: bytes) -> None:
    assert read_usage(body) is None


@pytest.mark.parametrize(
    ("request_", "limited"),
    [
        ({}, {"max_tokens": 100}),
        ({"max_tokens": 100}, {"max_tokens": 100}),
        ({"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_tokens": None}, {"max_tokens": 100}),
    ],
)
def test_a_request_without_max_tokens_gets_the_maximum_of_the_server(
    request_: dict[str, Any], limited: dict[str, Any]
) -> None:
    assert limit_tokens(request_, RequestLimits(max_tokens=100)) == limited
    assert limit_tokens(request_, RequestLimits()) == request_


def test_a_request_for_more_tokens_is_refused() -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        with pytest.raises(RequestError, match=f"{name} must be at most 100 on this server"):
            limit_tokens({name: 101}, RequestLimits(max_tokens=100))


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"enable_thinking": False, "thinking": False}),
        ({"chat_template_kwargs": {"enable_thinking": True}}, {"enable_thinking": True, "thinking": False}),
        ({"chat_template_kwargs": {"other": 1}}, {"enable_thinking": False, "thinking": False, "other": 1}),
        ({"chat_template_kwargs": "x"}, "x"),
    ],
)
def test_thinking_is_switched_off_unless_a_request_says_otherwise(given: dict[str, Any], sent: Any) -> None:
    assert switch_thinking_off({"model": "bot"} | given) == {"model": "bot", "chat_template_kwargs": sent}


def test_a_request_for_an_effort_of_reasoning_stays_as_it_is() -> None:
    request = {"model": "bot", "reasoning_effort": "high"}
    assert switch_thinking_off(request) == request
