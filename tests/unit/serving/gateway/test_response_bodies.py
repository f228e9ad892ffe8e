"""Bodies of vLLM's responses, and its streams of events."""

import json

import pytest
from finetune_serving.gateway.response_bodies import (
    EventStream,
    Usage,
    build_model,
    build_model_list,
    read_usage,
    replace_model_name,
)
from hypothesis import given
from hypothesis import strategies as st

SERVED = "bot--0123456789ab"


def test_models_are_in_openais_shape() -> None:
    assert build_model("bot", 1, 2048) == {
        "id": "bot",
        "object": "model",
        "created": 1,
        "owned_by": "finetune.dev",
        "max_model_len": 2048,
    }
    models = build_model_list(["base", "bot"], 1, 2048)
    assert models == {"object": "list", "data": [build_model("base", 1, 2048), build_model("bot", 1, 2048)]}


CHUNK = b'data: {"id":"1","model":"bot--0123456789ab","choices":[{"delta":{"content":"\\"model\\":"}}]}'
TOTAL = b'data: {"id":"1","model":"bot--0123456789ab","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
DONE = b"data: [DONE]"
CREATED = (
    b'event: response.created\ndata: {"response":{"id":"1","metadata":{"model":"bot--0123456789ab"},'
    b'"model":"bot--0123456789ab","object":"response","usage":null},"type":"response.created"}'
)
COMPLETED = (
    b'event: response.completed\ndata: {"response":{"id":"1","metadata":{"model":"bot--0123456789ab"},'
    b'"model":"bot--0123456789ab","object":"response","tools":[{"parameters":{"choices":[]}}],'
    b'"usage":{"input_tokens":5,"output_tokens":2}},"type":"response.completed"}'
)


def feed_in_pieces(stream: EventStream, events: list[bytes], cuts: list[int]) -> bytes:
    rest, sent = b"".join(event + b"\n\n" for event in events), b""
    for cut in cuts:
        sent += stream.feed(rest[:cut], last=False)
        rest = rest[cut:]
    return sent + stream.feed(rest, last=True)


@given(st.lists(st.integers(1, 60), max_size=20), st.booleans())
def test_events_carry_the_public_name_wherever_a_stream_is_cut(cuts: list[int], keep_usage: bool) -> None:
    events = [CHUNK, CHUNK, TOTAL, DONE]
    stream = EventStream(SERVED, "bot", keep_usage=keep_usage)
    sent = feed_in_pieces(stream, events, cuts)
    kept = [event for event in events if keep_usage or event is not TOTAL]
    assert sent == b"".join(event + b"\n\n" for event in kept).replace(SERVED.encode(), b"bot")
    assert stream.usage == Usage(7, 3)


@given(st.lists(st.integers(1, 200), max_size=20))
def test_events_of_a_response_keep_what_they_repeat_of_the_request(cuts: list[int]) -> None:
    stream = EventStream(SERVED, "bot", keep_usage=True)
    sent = feed_in_pieces(stream, [CREATED, COMPLETED], cuts)
    responses = [json.loads(event.partition(b"data: ")[2])["response"] for event in sent.split(b"\n\n")[:-1]]
    assert [(response["model"], response["metadata"]) for response in responses] == [("bot", {"model": SERVED})] * 2
    assert stream.usage == Usage(5, 2)


def test_a_name_in_the_text_of_an_answer_stays() -> None:
    body = b'{"model":"base","choices":[{"message":{"content":"{\\"model\\":\\"base\\",\\"choices\\":1}"}}]}'
    replaced = json.loads(replace_model_name(body, "base", "mine"))
    assert replaced["model"] == "mine"
    assert json.loads(replaced["choices"][0]["message"]["content"])["model"] == "base"


def test_the_usage_is_read_from_every_kind_of_response() -> None:
    assert read_usage(b'{"usage":{"prompt_tokens":7,"completion_tokens":3}}') == Usage(7, 3)
    assert read_usage(b'{"usage":{"input_tokens":7,"output_tokens":3}}') == Usage(7, 3)


@pytest.mark.parametrize(
    "body", [b"", b'{"usage":', b'{"usage":null}', b'{"usage":{}}', b'["usage":]', b'[{"usage":1}]', b'{"usage":1}']
)
def test_a_response_without_a_valid_usage_has_none(body: bytes) -> None:
    assert read_usage(body) is None
