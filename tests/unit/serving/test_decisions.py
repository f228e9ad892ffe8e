"""The server's decisions: what to host, what to rewrite."""

import json
from typing import Any

import pytest
from finetune_api.routes import Route, Routes
from finetune_serving.adapters import find_problem
from finetune_serving.config import LORA_MODULES, allowed_rank
from finetune_serving.hosting import Hosting
from finetune_serving.openai_messages import NameRewriter, RequestError, error_body, model_list, read_body
from hypothesis import given
from hypothesis import strategies as st

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "pvc://models/base",
    "r": 16,
    "target_modules": list(LORA_MODULES),
}


def route(name: str, letter: str = "a") -> Route:
    return Route(model_name=name, job="job", path="/claims/x", digest=f"sha256:{letter * 64}")


def routes(*wanted: Route) -> Routes:
    return Routes(routes=list(wanted))


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
    found = find_problem(CONFIG | change, "pvc://models/base", 16)
    assert problem in found
    assert bool(found) == bool(problem)


def test_ranks_are_rounded_up_to_what_vllm_allows() -> None:
    assert [allowed_rank(rank) for rank in (1, 8, 9, 64, 300)] == [8, 8, 16, 64, 320]


def test_a_new_version_answers_only_once_it_is_loaded() -> None:
    hosting = Hosting()
    assert not hosting.is_settled()
    hosting.want(routes(route("bot")))
    first = hosting.next_to_load(0)
    assert first is not None
    hosting.loaded(first)
    hosting.want(routes(route("bot", "b")))
    assert hosting.answering["bot"] is first
    second = hosting.next_to_load(0)
    assert second is not None
    hosting.loaded(second)
    assert hosting.answering["bot"] is second
    assert hosting.to_drop({first.route.served_name, second.route.served_name}) == [first.route.served_name]


def test_a_refused_adapter_waits_longer_each_time_and_its_siblings_go_on() -> None:
    hosting = Hosting()
    hosting.want(routes(route("bad"), route("good")))
    for now in (0.0, 1.0, 3.0):
        version = hosting.wanted["bad"]
        assert version.due <= now
        version.fail("its rank is 99", now)
        assert hosting.next_to_load(now) is hosting.wanted["good"]
    hosting.loaded(hosting.wanted["good"])
    assert hosting.is_settled()
    assert hosting.next_to_load(6.9) is None
    assert hosting.next_to_load(7.0) is hosting.wanted["bad"]
    states = {model.model_name: (model.state, model.message) for model in hosting.report().models}
    assert states == {"bad": ("Refused", "its rank is 99"), "good": ("Loaded", "")}


def test_a_model_without_a_route_is_dropped_and_a_known_one_stays() -> None:
    hosting = Hosting()
    hosting.want(routes(route("bot")))
    hosting.loaded(hosting.wanted["bot"])
    hosting.want(routes(route("bot"), route("new", "b")))
    assert hosting.wanted["bot"].is_loaded
    hosting.want(routes())
    assert hosting.to_drop({route("bot").served_name}) == [route("bot").served_name]
    assert not hosting.answering


@given(st.lists(st.integers(1, 30), max_size=20), st.booleans())
def test_names_are_rewritten_wherever_a_stream_is_cut(cuts: list[int], is_ours: bool) -> None:
    name = "bot--0123456789ab" if is_ours else "other"
    whole = b"".join(f'data: {{"id":"1","model":"{name}","text":"\\"model\\":"}}\n\n'.encode() for _ in range(3))
    rewriter = NameRewriter("bot--0123456789ab", "bot")
    sent, rest = b"", whole
    for cut in cuts:
        sent += rewriter.feed(rest[:cut], last=False)
        rest = rest[cut:]
    sent += rewriter.feed(rest, last=True)
    assert sent == whole.replace(b'"model":"bot--0123456789ab"', b'"model":"bot"')


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": 5}', b"[" * 100_000])
def test_a_body_without_a_model_is_refused_in_openais_shape(body: bytes) -> None:
    with pytest.raises(RequestError) as error:
        read_body(body)
    assert json.loads(error_body(error.value))["error"]["code"] == 400


def test_models_are_listed_in_openais_shape() -> None:
    assert [one["id"] for one in json.loads(model_list(["base", "bot"], 1))["data"]] == ["base", "bot"]
