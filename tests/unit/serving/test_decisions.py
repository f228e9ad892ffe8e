"""The server's decisions: what is refused, and the bodies of OpenAI's API."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finetune_api.access import RequestLimits
from finetune_api.modelserver import Engine, Model
from finetune_serving.adapters import find_problem
from finetune_serving.config import LORA_MODULES, allowed_rank
from finetune_serving.openai_messages import (
    EventStream,
    RequestError,
    Usage,
    error_body,
    limit_tokens,
    model_list,
    read_body,
    read_usage,
    wants_usage,
    with_usage,
)
from finetune_serving.serve import Serve, build_arguments
from hypothesis import given
from hypothesis import strategies as st

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "pvc://models/base",
    "r": 16,
    "target_modules": list(LORA_MODULES),
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"peft_type": "IA3"}, "not LORA"),
        ({"base_model_name_or_path": "pvc://models/other"}, "it was trained on"),
        ({"r": 64}, "its rank is 64"),
        ({"r": "16"}, "its rank is '16'"),
        ({"target_modules": "all-linear"}, "it changes 'all-linear'"),
        ({"target_modules": ["lm_head"]}, "it changes"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(change: dict[str, Any], problem: str) -> None:
    found = find_problem(CONFIG | change, Model(uri="pvc://models/base"), 16)
    assert problem in found
    assert bool(found) == bool(problem)


def test_the_engine_gets_what_may_be_chosen() -> None:
    options = Serve(
        "pvc://m/b", None, Engine(), 16, 2, 8000, "::", Path("/"), Path("/routes.json"), "", Path("/scratch")
    )
    arguments = build_arguments(options, "/m", gpu=False)
    assert {"--dtype=float32", "--enable-prefix-caching", "--tensor-parallel-size=1"} < set(arguments)
    assert {"--max-loras=2", "--max-cpu-loras=6", "--max-lora-rank=16"} < set(arguments)
    assert not [one for one in arguments if "quantization" in one or "max-num-seqs" in one]
    chosen = Engine(
        max_model_length=512,
        quantization="fp8",
        kv_cache_dtype="fp8",
        prefix_caching=False,
        tensor_parallel=2,
        gpu_memory_share=0.8,
        max_sequences=32,
        dtype="bfloat16",
    )
    assert set(build_arguments(replace(options, engine=chosen), "/m", gpu=True)) > {
        "--max-model-len=512",
        "--quantization=fp8",
        "--kv-cache-dtype=fp8",
        "--no-enable-prefix-caching",
        "--tensor-parallel-size=2",
        "--gpu-memory-utilization=0.8",
        "--max-num-seqs=32",
        "--dtype=bfloat16",
    }


def test_ranks_are_rounded_up_to_what_vllm_allows() -> None:
    assert [allowed_rank(rank) for rank in (1, 8, 9, 64, 300)] == [8, 8, 16, 64, 320]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": 5}', b"[" * 100_000])
def test_a_body_without_a_model_is_refused_in_openais_shape(body: bytes) -> None:
    with pytest.raises(RequestError) as error:
        read_body(body)
    assert json.loads(error_body(error.value))["error"]["code"] == 400


def test_models_are_listed_in_openais_shape() -> None:
    listed = json.loads(model_list(["base", "bot"], 1, 2048))["data"]
    assert [(one["id"], one["max_model_len"]) for one in listed] == [("base", 2048), ("bot", 2048)]


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


def test_the_usage_is_asked_for_in_streams_only() -> None:
    assert with_usage({"model": "bot"}) == {"model": "bot"}
    asked = with_usage({"stream": True, "stream_options": {"other": 1}})
    assert asked["stream_options"] == {"other": 1, "include_usage": True}
    assert with_usage({"stream": True, "stream_options": None})["stream_options"] == {"include_usage": True}
    assert not wants_usage({"stream_options": {"include_usage": False}})
    assert wants_usage({"stream_options": {"include_usage": True}})


@pytest.mark.parametrize("body", [b"", b'{"usage":', b'{"usage":null}', b'{"usage":{}}', b'["usage":]'])
def test_an_answer_without_usage_counts_no_tokens(body: bytes) -> None:
    assert read_usage(body) is None


@pytest.mark.parametrize(
    ("request_", "outcome"),
    [
        ({}, {"max_tokens": 100}),
        ({"max_tokens": 100}, {"max_tokens": 100}),
        ({"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_tokens": None}, {"max_tokens": 100}),
    ],
)
def test_an_answer_is_no_longer_than_the_server_allows(request_: dict[str, Any], outcome: dict[str, Any]) -> None:
    assert limit_tokens(request_, RequestLimits(max_tokens=100)) == outcome
    assert limit_tokens(request_, RequestLimits()) == request_


def test_a_request_for_more_tokens_is_refused() -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        with pytest.raises(RequestError, match="above 100, the most of this server"):
            limit_tokens({name: 101}, RequestLimits(max_tokens=100))
