"""OpenAI's Responses API in real vLLM: public names, limits, metrics, and what the gateway refuses."""

import json
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

import pytest
from finetune_api.access import RequestLimits
from prometheus_client.parser import text_string_to_metric_families
from serving.vllm_server import Server
from waiting import wait_for

PATH = "/v1/responses"
PROMPT_TOKENS, GENERATED_TOKENS = "finetune_prompt_tokens_total", "finetune_generated_tokens_total"
ASKED: dict[str, Any] = {"model": "bot", "input": "what does thing 7 cost?", "temperature": 0, "max_output_tokens": 16}


@pytest.fixture(autouse=True)
def one_bot(server: Server) -> None:
    """Every test starts with one adapter, whose answers are no thoughts."""
    server.set_adapter_without_thinking("bot", server.root / "claims" / "out" / "first")


def refuse(server: Server, **fields: Any) -> dict[str, Any]:
    """Return the error of a request that is refused."""
    with pytest.raises(urllib.error.HTTPError) as error:
        server.post(PATH, **(ASKED | fields))
    content = json.loads(error.value.read())["error"]
    assert (error.value.code, content["type"]) == (400, "invalid_request_error")
    return dict(content)


def read_events(text: str) -> list[dict[str, Any]]:
    """Return the data of a stream's events, whose names are the types in their data."""
    events = []
    for event in text.strip().split("\n\n"):
        name, _, data = event.partition("\ndata: ")
        events.append(json.loads(data))
        assert name == f"event: {events[-1]['type']}"
    return events


def count_tokens(server: Server) -> Counter[str]:
    """Return the tokens that the metrics have counted for the model."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as response:
        families = text_string_to_metric_families(response.read().decode())
    counts: Counter[str] = Counter()
    for sample in (sample for family in families for sample in family.samples):
        if sample.name in (PROMPT_TOKENS, GENERATED_TOKENS) and sample.labels["model"] == "bot":
            counts[sample.name] += int(sample.value)
    return counts


def test_a_response_carries_the_requested_name_and_repeats_the_request(server: Server) -> None:
    digest = server.get("/finetune/loaded")["models"][0]["digest"].removeprefix("sha256:")
    metadata = {"model": f"bot--{digest[:12]}"}
    for name in ("bot", "bot@first", "base"):
        body, headers = server.post(PATH, **(ASKED | {"model": name, "metadata": metadata}))
        response = json.loads(body)
        assert (response["model"], response["metadata"], response["status"]) == (name, metadata, "incomplete")
        assert headers["x-finetune-version"] == (None if name == "base" else "first")


def test_every_event_of_a_stream_carries_the_requested_name(server: Server) -> None:
    text, headers = server.post(PATH, **ASKED, stream=True)
    events = read_events(text)
    names = [event["response"]["model"] for event in events if "response" in event]
    assert names == ["bot"] * 3
    assert "bot--" not in text
    assert headers["x-finetune-version"] == "first"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    answer = json.loads(server.post(PATH, **ASKED)[0])["output"][0]["content"][0]["text"]
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == answer
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == answer


@pytest.mark.parametrize("stream", [False, True])
def test_the_metrics_count_its_tokens(server: Server, stream: bool) -> None:
    before = count_tokens(server)
    text, _ = server.post(PATH, **ASKED, stream=stream)
    usage = (read_events(text)[-1]["response"] if stream else json.loads(text))["usage"]
    wait_for(lambda: count_tokens(server) != before, "the metrics")
    counted = count_tokens(server) - before
    assert counted == {PROMPT_TOKENS: usage["input_tokens"], GENERATED_TOKENS: usage["output_tokens"]}
    assert usage["output_tokens"] == ASKED["max_output_tokens"]


def test_the_limits_of_the_server_apply(server: Server) -> None:
    versions = {"bot": [(server.root / "claims" / "out" / "first", 100)]}
    server.set_versions(versions, RequestLimits(max_tokens=4))
    body, _ = server.post(PATH, model="bot", input="hello")
    assert json.loads(body)["max_output_tokens"] == 4
    assert "max_output_tokens must be at most 4 on this server" in refuse(server)["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store", True),
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("background", True),
        ("tools", [{"type": "web_search"}]),
        ("tools", [{"type": "mcp", "server_label": "a", "server_url": "http://127.0.0.1:1"}]),
        ("tools", [{"type": "code_interpreter", "container": {"type": "auto"}}]),
        ("tools", [{"type": "file_search", "vector_store_ids": ["a"]}]),
        ("chat_template_kwargs", {"chat_template": "{{ messages }}"}),
        ("max_output_tokens", "16"),
    ],
)
def test_what_the_server_does_not_do_is_refused(server: Server, name: str, value: Any) -> None:
    assert refuse(server, **{name: value})["param"] == name


def test_a_stored_response_does_not_exist(server: Server) -> None:
    for method, path in (
        ("GET", "resp_1"),
        ("DELETE", "resp_1"),
        ("POST", "resp_1/cancel"),
        ("GET", "resp_1/input_items"),
    ):
        request = urllib.request.Request(f"{server.url}{PATH}/{path}", method=method)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=10)
        assert error.value.code == 404
        assert "this server stores no responses" in json.loads(error.value.read())["error"]["message"]


INVALID: dict[str, Any] = {
    "no items": [],
    "a number": 5,
    "a number as item": [5],
    "a stored item": [{"type": "item_reference", "id": "msg_1"}],
    "an item of a server's tool": [{"type": "web_search_call", "id": "ws_1", "status": "completed"}],
    "an image": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://127.0.0.1:1/a.png"}]}],
    "encrypted reasoning": [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}],
    "half of a character": "\ud800",
    "more than the model's length": "x" * 5000,
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_input_is_the_error_of_the_client(server: Server, name: str) -> None:
    error = refuse(server, input=INVALID[name])
    assert error["code"] == ("context_length_exceeded" if name == "more than the model's length" else None)


def test_an_empty_answer_can_be_sent_back(server: Server) -> None:
    """Without a parser vLLM's answer has no content where it has no text."""
    empty = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": []}
    question = {"role": "user", "content": "hello"}
    body, _ = server.post(PATH, **(ASKED | {"input": [question, empty, question]}))
    assert json.loads(body)["model"] == "bot"


def test_a_failure_of_vllm_has_openais_shape_and_is_counted(server: Server) -> None:
    refusal = {"type": "refusal", "refusal": "no"}
    broken = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [refusal]}
    errors = server.get("/finetune/loaded")["models"][0]["errors"]
    with pytest.raises(urllib.error.HTTPError) as error:
        server.post(PATH, **(ASKED | {"input": [broken]}))
    assert (error.value.code, json.loads(error.value.read())["error"]["type"]) == (500, "server_error")
    assert server.get("/finetune/loaded")["models"][0]["errors"] == errors + 1


def test_a_stream_calls_a_function(server: Server) -> None:
    parameters = {"type": "object", "properties": {"thing": {"enum": ["kettle"]}}, "required": ["thing"]}
    tool = {"type": "function", "name": "look_up", "parameters": parameters, "strict": True}
    # The model is random: at a temperature of 0 it may never end the JSON.
    choice = {"type": "function", "name": "look_up"}
    request = {"model": "bot", "input": "x", "temperature": 2, "tools": [tool], "tool_choice": choice}
    events = read_events(server.post(PATH, **request, stream=True)[0])
    (done,) = (event for event in events if event["type"] == "response.function_call_arguments.done")
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert json.loads("".join(deltas)) == json.loads(done["arguments"]) == {"thing": "kettle"}
    (call,) = events[-1]["response"]["output"]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "look_up", done["arguments"])
