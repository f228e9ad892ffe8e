"""The plugin in real vLLM: names, versions, refusals, and everything that must not answer."""

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
from finetune_serving.gateway.hosting import position_of
from openai import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
)
from safetensors.torch import load_file, save_file
from serving.running import KEY, Server, make_adapter
from waiting import wait_for

QUESTION: Any = [{"role": "user", "content": "what does thing 7 cost?"}]


def ask(server: Server, model: str, **options: Any) -> Any:
    return client(server).chat.completions.create(
        model=model, messages=QUESTION, temperature=0, **({"max_tokens": 8} | options)
    )


def client(server: Server, key: str = KEY) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def post(server: Server, **request: Any) -> tuple[str, Message]:
    """Return the body and the headers of an answer to a chat."""
    body = json.dumps({"messages": QUESTION, "max_tokens": 8, "temperature": 0} | request).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    asked = urllib.request.Request(f"{server.url}/v1/chat/completions", body, headers)
    with urllib.request.urlopen(asked, timeout=60) as response:
        return response.read().decode(), response.headers


def out(server: Server, name: str) -> Path:
    return server.root / "claims" / "out" / name


@pytest.fixture(autouse=True)
def one_bot(server: Server) -> None:
    """Every test begins with one adapter."""
    server.route(bot=out(server, "first"))
    server.wait_for_states(bot="Loaded")


def test_the_engine_is_forked_from_the_server_and_computes_by_itself(server: Server) -> None:
    """Each process more imports all packages anew; where one is spawned, a tracker of resources is beside it."""
    (process,) = (
        one for one in psutil.process_iter(["cmdline"]) if f"--port={server.port}" in (one.info["cmdline"] or ())
    )
    assert [child.name() for child in process.children(recursive=True)] == ["VLLM::EngineCore"]


def test_base_and_tuned_answer_differently_under_their_names(server: Server) -> None:
    base, bot = ask(server, "base"), ask(server, "bot")
    assert (base.model, bot.model) == ("base", "bot")
    assert base.choices[0].message.content != bot.choices[0].message.content
    assert [model["id"] for model in server.get("/v1/models")["data"]] == ["base", "bot"]
    with pytest.raises(NotFoundError, match="there are base, bot"):
        ask(server, "other")


def test_vllms_own_names_are_answered_with_404(server: Server) -> None:
    digest = server.get("/finetune/loaded")["models"][0]["digest"]
    with pytest.raises(NotFoundError):
        ask(server, f"bot--{digest.removeprefix('sha256:')[:12]}")


def test_a_stream_carries_the_public_name_only(server: Server) -> None:
    text, headers = post(server, model="bot", stream=True)
    assert text.count('"model":"bot"') > 2
    assert "bot--" not in text
    assert '"usage":{' not in text
    assert text.rstrip().endswith("data: [DONE]")
    assert headers["x-finetune-version"] == "first"
    counted, _ = post(server, model="bot", stream=True, stream_options={"include_usage": True})
    assert counted.count('"usage":{') == 1


def test_the_versions_of_a_name_divide_its_users(server: Server) -> None:
    first = ask(server, "bot").choices[0].message.content
    server.divide({"bot": [(out(server, "second"), 30), (out(server, "first"), 70)]})
    server.wait_for_states(bot_AT_second="Loaded", bot_AT_first="Loaded")
    assert ask(server, "bot@first").choices[0].message.content == first
    second = ask(server, "bot@second")
    assert second.model == "bot@second"
    assert second.choices[0].message.content != first
    users = [f"user {number}" for number in range(20)]
    answered = [post(server, model="bot", user=user)[1]["x-finetune-version"] for user in users]
    assert answered == ["second" if position_of("bot", user) < 30 else "first" for user in users]
    assert {"first", "second"} == set(answered)
    server.divide({"bot": [(out(server, "second"), 100), (out(server, "first"), 0)]})
    wait_for(lambda: post(server, model="bot")[1]["x-finetune-version"] == "second", "the new shares")
    assert ask(server, "bot@first").choices[0].message.content == first


@pytest.mark.parametrize("key", ["", "wrong", KEY[:-1]])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"])
def test_only_requests_with_a_key_are_answered(server: Server, key: str, path: str) -> None:
    body = None if path == "/v1/models" else b'{"model": "bot"}'
    request = urllib.request.Request(f"{server.url}{path}", body, {"Authorization": f"Bearer {key}"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=5)
    assert error.value.code == 401
    assert json.loads(error.value.read())["error"]["type"] == "authentication_error"


def test_a_key_that_is_changed_holds_at_once(server: Server) -> None:
    (server.root / "keys" / "guest").write_text("for a day")
    wait_for(lambda: is_known(server, "for a day"), "the new key")
    (server.root / "keys" / "guest").unlink()
    wait_for(lambda: not is_known(server, "for a day"), "the key to go")


def is_known(server: Server, key: str) -> bool:
    try:
        client(server, key).models.list()
    except AuthenticationError:
        return False
    return True


def test_a_request_larger_than_the_server_allows_is_refused(server: Server) -> None:
    server.divide({"bot": [(out(server, "first"), 100)]}, RequestLimits(max_tokens=4, max_body_bytes=1024))
    wait_for(lambda: ask(server, "bot", max_tokens=None).usage.completion_tokens == 4, "the limits")
    with pytest.raises(BadRequestError, match="max_tokens is above 4"):
        ask(server, "bot", max_tokens=5)
    with pytest.raises(APIStatusError) as error:
        ask(server, "bot", max_tokens=4, user="x" * 2000)
    assert error.value.status_code == 413


def test_a_new_version_takes_the_name_over(server: Server) -> None:
    before = ask(server, "bot").choices[0].message.content
    server.route(bot=out(server, "second"))
    server.wait_for_states(bot="Loaded")
    after = ask(server, "bot").choices[0].message.content
    assert after != before
    server.route(bot=out(server, "first"))
    server.wait_for_states(bot="Loaded")
    assert ask(server, "bot").choices[0].message.content == before


def test_two_adapters_live_side_by_side_and_one_goes(server: Server) -> None:
    first = ask(server, "bot").choices[0].message.content
    server.route(bot=out(server, "first"), other=out(server, "second"))
    server.wait_for_states(bot="Loaded", other="Loaded")
    assert ask(server, "bot").choices[0].message.content == first
    assert ask(server, "other").choices[0].message.content != first
    server.route(bot=out(server, "first"))
    wait_for(lambda: len(server.get("/v1/models")["data"]) == 2, "the name to go")
    with pytest.raises(NotFoundError):
        ask(server, "other")


def test_a_changed_adapter_is_refused_and_its_sibling_goes_on(server: Server) -> None:
    changed = out(server, "changed")
    shutil.rmtree(changed, ignore_errors=True)
    make_adapter(server.root / "claims" / "models" / "tiny", changed, 5)
    server.route(bot=out(server, "first"), bad=changed)
    text = (server.root / "routes.json").read_text()
    digest = json.loads(text)["routes"][1]["digest"]
    server.write(text.replace(digest, "sha256:" + "0" * 64))
    server.wait_for_states(bot="Loaded", bad="Refused")
    message = server.get("/finetune/loaded")["models"][1]["message"]
    assert "it was changed after it was proven" in message
    assert ask(server, "bot").model == "bot"
    with urllib.request.urlopen(f"{server.url}/readyz", timeout=5) as response:
        assert response.status == 200
    with pytest.raises(InternalServerError, match="not loaded yet"):
        ask(server, "bad")


def test_a_whole_model_answers_under_its_name_where_the_server_was_started_with_it(server: Server) -> None:
    own = server.root / "claims" / "models" / "tiny"
    other = out(server, "model")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(own, other)
    server.route(bot=out(server, "first"), mine=own, foreign=other)
    routes = json.loads((server.root / "routes.json").read_text())
    for route in routes["routes"]:
        route["kind"] = "Adapter" if route["modelName"] == "bot" else "Model"
    server.write(json.dumps(routes))
    server.wait_for_states(bot="Loaded", mine="Loaded", foreign="Refused")
    assert "this server was started with pvc://models/tiny" in server.get("/finetune/loaded")["models"][2]["message"]
    answer = ask(server, "mine")
    assert answer.model == "mine"
    assert answer.choices[0].message.content == ask(server, "base").choices[0].message.content


def test_a_model_whose_numbers_overflow_is_the_servers_error(server: Server) -> None:
    broken = out(server, "broken")
    shutil.copytree(out(server, "second"), broken)
    # Numbers that are finite alone and not when they are multiplied: such likelihoods cannot be written as JSON.
    tensors = load_file(broken / "adapter_model.safetensors")
    save_file({name: tensor.sign() * 1e30 for name, tensor in tensors.items()}, broken / "adapter_model.safetensors")
    server.route(bot=out(server, "first"), broken=broken)
    server.wait_for_states(bot="Loaded", broken="Loaded")
    with pytest.raises(InternalServerError, match="the likelihoods of broken are no numbers"):
        ask(server, "broken", logprobs=True)
    for length in (1, 8, 40, 200):
        assert ask(server, "bot", logprobs=True, max_tokens=length).model == "bot"
    found = next(one for one in server.get("/finetune/loaded")["models"] if one["modelName"] == "broken")
    assert (found["requests"], found["errors"]) == (1, 1)


def test_wrong_routes_leave_everything_as_it_was(server: Server) -> None:
    server.write('{"routes": [{"modelName": "bot"}]}')
    server.write("not json")
    assert ask(server, "bot").model == "bot"
    server.route(bot=out(server, "second"))
    server.wait_for_states(bot="Loaded")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("GET", "/adapters"),
        ("POST", "/tokenize"),
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
    ask(server, "bot")
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
