"""The plugin in real vLLM: model names, versions, refused adapters, and routes that must not be reachable."""

import json
import shutil
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import psutil
import pytest
from finetune_api.access import RequestLimits
from finetune_serving.gateway.hosting import compute_percentile
from openai import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
)
from safetensors.torch import load_file, save_file
from serving.vllm_server import KEY, Server, make_adapter
from waiting import wait_for

MESSAGES: Any = [{"role": "user", "content": "what does thing 7 cost?"}]
WITHOUT_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}
"""The random adapters never end a thought."""


def complete_chat(server: Server, model: str, **options: Any) -> Any:
    with client(server) as openai:
        return openai.chat.completions.create(
            model=model, messages=MESSAGES, temperature=0, extra_body=WITHOUT_THINKING, **({"max_tokens": 8} | options)
        )


def client(server: Server, key: str = KEY) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def post(server: Server, **request: Any) -> tuple[str, Message]:
    """Return the body and the headers of the response to a chat completion."""
    body = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0} | WITHOUT_THINKING | request
    return server.post("/v1/chat/completions", **body)


def adapter_path(server: Server, name: str) -> Path:
    return server.root / "claims" / "out" / name


@pytest.fixture(autouse=True)
def one_bot(server: Server) -> None:
    """Every test starts with one adapter."""
    server.set_adapters(bot=adapter_path(server, "first"))
    server.wait_for_states(bot="Loaded")


def test_the_engine_is_one_process_forked_from_the_server(server: Server) -> None:
    """Each further process would import all packages again; a spawned one comes with a resource tracker."""
    (process,) = (
        process
        for process in psutil.process_iter(["cmdline"])
        if f"--port={server.port}" in (process.info["cmdline"] or ())
    )
    assert [child.name() for child in process.children(recursive=True)] == ["VLLM::EngineCore"]


def test_base_and_tuned_answer_differently_under_their_names(server: Server) -> None:
    base, bot = complete_chat(server, "base"), complete_chat(server, "bot")
    assert (base.model, bot.model) == ("base", "bot")
    assert base.choices[0].message.content != bot.choices[0].message.content
    assert [model["id"] for model in server.get("/v1/models")["data"]] == ["base", "bot"]
    with pytest.raises(NotFoundError, match="available models: base, bot") as error:
        complete_chat(server, "other")
    assert (error.value.code, error.value.param, error.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )


def test_vllms_own_names_are_answered_with_404(server: Server) -> None:
    digest = server.get("/finetune/loaded")["models"][0]["digest"]
    with pytest.raises(NotFoundError):
        complete_chat(server, f"bot--{digest.removeprefix('sha256:')[:12]}")


def test_a_stream_carries_the_public_name_only(server: Server) -> None:
    text, headers = post(server, model="bot", stream=True, max_tokens=32)
    assert text.count('"model":"bot"') > 2
    assert "bot--" not in text
    assert '"usage":{' not in text
    assert text.rstrip().endswith("data: [DONE]")
    assert headers["x-finetune-version"] == "first"
    counted, _ = post(server, model="bot", stream=True, stream_options={"include_usage": True})
    assert counted.count('"usage":{') == 1


def test_the_versions_of_a_name_share_its_users_by_weight(server: Server) -> None:
    first = complete_chat(server, "bot").choices[0].message.content
    server.set_versions({"bot": [(adapter_path(server, "second"), 30), (adapter_path(server, "first"), 70)]})
    server.wait_for_states(bot_AT_second="Loaded", bot_AT_first="Loaded")
    assert complete_chat(server, "bot@first").choices[0].message.content == first
    second = complete_chat(server, "bot@second")
    assert second.model == "bot@second"
    assert second.choices[0].message.content != first
    users = [f"user {number}" for number in range(20)]
    fields = ("user", "safety_identifier")
    answered = [
        post(server, model="bot", **{fields[number % 2]: user})[1]["x-finetune-version"]
        for number, user in enumerate(users)
    ]
    assert answered == ["second" if compute_percentile("bot", user) < 30 else "first" for user in users]
    assert {"first", "second"} == set(answered)
    server.set_versions({"bot": [(adapter_path(server, "second"), 100), (adapter_path(server, "first"), 0)]})
    wait_for(lambda: post(server, model="bot")[1]["x-finetune-version"] == "second", "the new shares")
    assert complete_chat(server, "bot@first").choices[0].message.content == first


@pytest.mark.parametrize("key", ["", "wrong", KEY[:-1]])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/models", "/v1/models/bot"])
def test_only_requests_with_a_key_are_answered(server: Server, key: str, path: str) -> None:
    body = None if path.startswith("/v1/models") else b'{"model": "bot"}'
    request = urllib.request.Request(f"{server.url}{path}", body, {"Authorization": f"Bearer {key}"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=5)
    assert error.value.code == 401
    assert json.loads(error.value.read())["error"]["type"] == "authentication_error"


def test_changed_keys_take_effect_at_once(server: Server) -> None:
    (server.root / "keys" / "guest").write_text("guest key")
    wait_for(lambda: is_known(server, "guest key"), "the new key")
    (server.root / "keys" / "guest").unlink()
    wait_for(lambda: not is_known(server, "guest key"), "the key to be removed")


def is_known(server: Server, key: str) -> bool:
    try:
        with client(server, key) as openai:
            openai.models.list()
    except AuthenticationError:
        return False
    return True


def test_a_request_larger_than_the_server_allows_is_refused(server: Server) -> None:
    server.set_versions(
        {"bot": [(adapter_path(server, "first"), 100)]}, RequestLimits(max_tokens=4, max_body_bytes=1024)
    )
    wait_for(lambda: complete_chat(server, "bot", max_tokens=None).usage.completion_tokens == 4, "the limits")
    with pytest.raises(BadRequestError, match="max_tokens must be at most 4"):
        complete_chat(server, "bot", max_tokens=5)
    with pytest.raises(APIStatusError) as error:
        complete_chat(server, "bot", max_tokens=4, user="x" * 2000)
    assert error.value.status_code == 413


def test_a_new_version_replaces_the_previous_one(server: Server) -> None:
    before = complete_chat(server, "bot").choices[0].message.content
    server.set_adapters(bot=adapter_path(server, "second"))
    server.wait_for_states(bot="Loaded")
    after = complete_chat(server, "bot").choices[0].message.content
    assert after != before
    server.set_adapters(bot=adapter_path(server, "first"))
    server.wait_for_states(bot="Loaded")
    assert complete_chat(server, "bot").choices[0].message.content == before


def test_two_adapters_are_served_and_one_is_removed(server: Server) -> None:
    first = complete_chat(server, "bot").choices[0].message.content
    server.set_adapters(bot=adapter_path(server, "first"), other=adapter_path(server, "second"))
    server.wait_for_states(bot="Loaded", other="Loaded")
    assert complete_chat(server, "bot").choices[0].message.content == first
    assert complete_chat(server, "other").choices[0].message.content != first
    server.set_adapters(bot=adapter_path(server, "first"))
    wait_for(lambda: len(server.get("/v1/models")["data"]) == 2, "the name to be removed")
    with pytest.raises(NotFoundError):
        complete_chat(server, "other")


def test_a_changed_adapter_is_refused_while_another_keeps_answering(server: Server) -> None:
    changed = adapter_path(server, "changed")
    shutil.rmtree(changed, ignore_errors=True)
    make_adapter(server.root / "claims" / "models" / "tiny", changed, 5)
    server.set_adapters(bot=adapter_path(server, "first"), bad=changed)
    text = (server.root / "routes.json").read_text()
    digest = json.loads(text)["routes"][1]["digest"]
    server.write_routes(text.replace(digest, "sha256:" + "0" * 64))
    server.wait_for_states(bot="Loaded", bad="Refused")
    message = server.get("/finetune/loaded")["models"][1]["message"]
    assert "it was changed after the training" in message
    assert complete_chat(server, "bot").model == "bot"
    with urllib.request.urlopen(f"{server.url}/readyz", timeout=5) as response:
        assert response.status == 200
    with pytest.raises(InternalServerError, match="not loaded yet"):
        complete_chat(server, "bad")


def test_a_complete_model_is_served_only_by_a_server_that_was_started_with_it(server: Server) -> None:
    own = server.root / "claims" / "models" / "tiny"
    other = adapter_path(server, "model")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(own, other)
    server.set_adapters(bot=adapter_path(server, "first"), mine=own, foreign=other)
    routes = json.loads((server.root / "routes.json").read_text())
    for route in routes["routes"]:
        route["kind"] = "Adapter" if route["modelName"] == "bot" else "Model"
    server.write_routes(json.dumps(routes))
    server.wait_for_states(bot="Loaded", mine="Loaded", foreign="Refused")
    assert (
        "but this server was started with pvc://models/tiny" in server.get("/finetune/loaded")["models"][2]["message"]
    )
    answer = complete_chat(server, "mine")
    assert answer.model == "mine"
    assert answer.choices[0].message.content == complete_chat(server, "base").choices[0].message.content


def test_logprobs_that_are_not_finite_are_a_server_error(server: Server) -> None:
    broken = adapter_path(server, "broken")
    shutil.copytree(adapter_path(server, "second"), broken)
    # The weights are finite but their products are not: such logprobs cannot be written as JSON.
    tensors = load_file(broken / "adapter_model.safetensors")
    save_file({name: tensor.sign() * 1e30 for name, tensor in tensors.items()}, broken / "adapter_model.safetensors")
    server.set_adapters(bot=adapter_path(server, "first"), broken=broken)
    server.wait_for_states(bot="Loaded", broken="Loaded")
    with pytest.raises(InternalServerError, match="the model broken returned logprobs that are not finite numbers"):
        complete_chat(server, "broken", logprobs=True)
    for length in (1, 8, 40, 200):
        assert complete_chat(server, "bot", logprobs=True, max_tokens=length).model == "bot"
    model = next(model for model in server.get("/finetune/loaded")["models"] if model["modelName"] == "broken")
    assert (model["requests"], model["errors"]) == (1, 1)


def test_invalid_routes_change_nothing(server: Server) -> None:
    server.write_routes('{"routes": [{"modelName": "bot"}]}')
    server.write_routes("not json")
    assert complete_chat(server, "bot").model == "bot"
    server.set_adapters(bot=adapter_path(server, "second"))
    server.wait_for_states(bot="Loaded")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("GET", "/adapters"),
        ("POST", "/tokenize"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/messages"),
        ("GET", "/version"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("POST", "/invocations"),
        ("GET", "/ping"),
        ("DELETE", "/v1/models"),
        ("GET", "/v1/chat/completions"),
        ("GET", "//metrics"),
        ("GET", "/v1/models/"),
    ],
)
def test_an_unlisted_route_is_answered_with_404(server: Server, method: str, path: str) -> None:
    request = urllib.request.Request(f"{server.url}{path}", b"{}" if method == "POST" else None, method=method)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=5)
    assert error.value.code == 404
    assert json.loads(error.value.read())["error"]["type"] == "invalid_request_error"


def test_metrics_count_each_public_name(server: Server) -> None:
    complete_chat(server, "bot")
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    bot = [line for line in lines if 'model="bot",version="first"' in line]
    for name in (
        "finetune_requests_total",
        "finetune_request_seconds_sum",
        "finetune_time_to_first_byte_seconds_sum",
        "finetune_prompt_tokens_total",
        "finetune_generated_tokens_total",
    ):
        assert [line for line in bot if line.startswith(f"{name}{{") and float(line.rpartition(" ")[2]) > 0], name
    assert "finetune_adapters_loaded 1.0" in lines
    assert not [
        line for line in lines if line.startswith("finetune_") and 'model="other"' in line and 'code="404"' in line
    ]
