"""Requests to real vLLM: single models, what a key may see, and what changes a prompt or exceeds the model's length."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from serving.vllm_server import KEY, Server

MESSAGES: Any = [{"role": "user", "content": "what does thing 7 cost?"}]


@pytest.fixture
def openai(server: Server) -> Iterator[OpenAI]:
    """A client of the server, which hosts one adapter whose answers are no thoughts."""
    server.set_adapter_without_thinking("bot", server.root / "claims" / "out" / "first")
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_a_model_is_retrieved_under_each_of_its_names(openai: OpenAI) -> None:
    names = ("base", "bot", "bot@first")
    assert [openai.models.retrieve(name).id for name in names] == list(names)
    assert openai.models.retrieve("bot") in openai.models.list().data
    for name in ("other", "bot@second", "bot/first", "bot@", "@first"):
        with pytest.raises(NotFoundError, match="available models: base, bot") as error:
            openai.models.retrieve(name)
        assert error.value.code == "model_not_found"


def test_a_key_sees_only_its_models(server: Server, openai: OpenAI) -> None:
    out = server.root / "claims" / "out"
    routes = server.build_routes({"bot": [(out / "first", 100)], "other": [(out / "second", 100)]})
    server.write_routes(json.dumps(routes | {"keys": [{"name": "tests", "models": ["bot"]}]}))
    server.wait_for_states(bot="Loaded", other="Loaded")
    assert [model.id for model in openai.models.list()] == ["bot"]
    assert openai.models.retrieve("bot@first").id == "bot@first"
    for name in ("base", "other", "other@second", "missing"):
        with pytest.raises(NotFoundError, match="available models: bot$"):
            openai.models.retrieve(name)


def test_a_limit_beyond_the_length_of_the_model_is_refused(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as error:
        openai.chat.completions.create(model="bot", messages=MESSAGES, max_tokens=1025)
    assert (error.value.param, error.value.code) == ("max_tokens", None)


def test_a_prompt_beyond_the_length_of_the_model_has_the_code_that_clients_compare(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as error:
        openai.completions.create(model="bot", prompt=[5] * 1025)
    assert error.value.code == "context_length_exceeded"


def test_a_limit_is_reduced_to_what_the_prompt_leaves(openai: OpenAI) -> None:
    answer = openai.completions.create(model="bot", prompt=[5] * 1000, max_tokens=1000, extra_body={"ignore_eos": True})
    assert answer.usage
    assert answer.usage.completion_tokens == 24


def test_a_request_may_continue_a_message(openai: OpenAI) -> None:
    answer: Any = openai.chat.completions.create(
        model="bot",
        messages=[*MESSAGES, {"role": "assistant", "content": "It costs"}],
        max_tokens=4,
        extra_body={"continue_final_message": True, "add_generation_prompt": False, "return_prompt_text": True},
    )
    assert answer.prompt_text.endswith("It costs")


def test_a_request_may_cut_a_prompt(openai: OpenAI) -> None:
    fields = {"truncate_prompt_tokens": 5}
    answer = openai.chat.completions.create(model="bot", messages=MESSAGES, max_tokens=4, extra_body=fields)
    assert answer.usage
    assert answer.usage.prompt_tokens == 5
