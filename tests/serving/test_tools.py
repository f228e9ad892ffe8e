"""Tool calls and reasoning through OpenAI's client: the server chose its parsers by the model's chat template."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_api.contract.exit_codes import ExitCode
from finetune_pod.chat import ChatEncoder
from finetune_serving.stop_tokens import read_stop_tokens
from finetune_serving.vllm_config import ServerConfig
from forked import preload, run_forked
from openai import OpenAI
from serving.tool_caller import ANSWER, CALLS_ONE, CALLS_TWO, GREETING, GREETS, ONE, RESULT, TOOLS, TWO
from serving.vllm_server import KEY, MODEL_URI, Server
from transformers import AutoTokenizer

preload("serving.evaluation_imports")

PARSERS = {"toolCallParser": "hermes", "reasoningParser": "qwen3", "message": ""}


@pytest.fixture(autouse=True)
def caller(server: Server) -> None:
    """Every test asks the adapter that calls tools."""
    server.set_adapters(caller=server.root / "claims" / "out" / "caller")
    server.wait_for_states(caller="Loaded")


def ask(server: Server, messages: list[Any], *, stream: bool = False, **options: Any) -> dict[str, Any]:
    """Return the parts of an answer: reasoning, content, calls as name and arguments, and why it ended."""
    client = OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    request: dict[str, Any] = {"model": "caller", "messages": messages, "temperature": 0, "max_tokens": 200} | options
    if stream:
        return assemble(client.chat.completions.create(stream=True, **request))
    (choice,) = client.chat.completions.create(**request).choices
    message: Any = choice.message
    return {
        "reasoning": (message.reasoning or "").strip(),
        "content": (message.content or "").strip(),
        "calls": [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()],
        "finish": choice.finish_reason,
    }


def assemble(chunks: Any) -> dict[str, Any]:
    """Return the parts of an answer from a stream, as clients put its deltas together."""
    reasoning = content = finish = ""
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        (choice,) = chunk.choices
        delta = choice.delta
        reasoning += getattr(delta, "reasoning", None) or ""
        content += delta.content or ""
        for call in delta.tool_calls or ():
            name_and_arguments = calls.setdefault(call.index, ["", ""])
            name_and_arguments[0] += call.function.name or ""
            name_and_arguments[1] += call.function.arguments or ""
        finish = choice.finish_reason or finish
    return {
        "reasoning": reasoning.strip(),
        "content": content.strip(),
        "calls": [(name, json.loads(arguments)) for _, (name, arguments) in sorted(calls.items())],
        "finish": finish,
    }


def expect(message: dict[str, Any], finish: str) -> dict[str, Any]:
    """Return the parts of an answer that the adapter has memorized."""
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return {
        "reasoning": message.get("reasoning_content", ""),
        "content": message["content"],
        "calls": [(function["name"], json.loads(function["arguments"])) for function in functions],
        "finish": finish,
    }


def test_a_pod_reports_the_parsers_that_it_chose(server: Server) -> None:
    assert server.get("/finetune/loaded")["engine"] == PARSERS


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("messages", "tools", "expected"),
    [
        ([ONE], TOOLS, expect(CALLS_ONE, "tool_calls")),
        ([TWO], TOOLS, expect(CALLS_TWO, "tool_calls")),
        ([ONE, CALLS_ONE, RESULT], TOOLS, expect(ANSWER, "stop")),
        ([GREETING], None, expect(GREETS, "stop")),
    ],
    ids=["one call", "two calls", "the answer to a result", "reasoning"],
)
def test_an_answer_is_read_back_as_it_was_trained(
    server: Server, messages: list[Any], tools: Any, expected: dict[str, Any], stream: bool
) -> None:
    options = {"tools": tools} if tools else {}
    assert ask(server, messages, stream=stream, **options) == expected


@pytest.mark.parametrize("stream", [False, True])
def test_one_call_at_a_time_can_be_asked_for(server: Server, stream: bool) -> None:
    answer = ask(server, [TWO], stream=stream, tools=TOOLS, parallel_tool_calls=False)
    assert answer["calls"] == [("find_parcel", {"number": "P1"})]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", "refund"])
def test_a_call_can_be_demanded_from_a_model_that_would_answer(server: Server, choice: str, stream: bool) -> None:
    tool_choice: Any = {"type": "function", "function": {"name": choice}} if choice == "refund" else choice
    tools = [{"type": "function", "function": tool["function"] | {"strict": True}} for tool in TOOLS]
    answer = ask(server, [GREETING], stream=stream, tools=tools, tool_choice=tool_choice)
    name, arguments = answer["calls"][0]
    assert name == ("refund" if choice == "refund" else name)
    assert is_valid(name, arguments)
    assert answer["content"] == ""


@pytest.mark.parametrize("strict", [False, True])
def test_a_strict_schema_is_enforced(server: Server, strict: bool) -> None:
    other = json.loads(json.dumps(TOOLS))
    other[0]["function"] |= {"strict": strict}
    other[0]["function"]["parameters"]["properties"]["number"] = {"enum": ["P8", "P9"]}
    ((name, arguments),) = ask(server, [ONE], tools=other)["calls"]
    assert (name, arguments["number"] in ("P8", "P9")) == ("find_parcel", strict)


def test_without_a_choice_the_call_stays_text(server: Server) -> None:
    answer = ask(server, [ONE], tools=TOOLS, tool_choice="none")
    assert answer["calls"] == []
    assert answer["reasoning"] == CALLS_ONE["reasoning_content"]


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_the_prompt_with_tools_is_the_one_that_was_trained(server: Server, choice: str) -> None:
    model = server.root / "claims" / "models" / "tiny"
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    encoder = ChatEncoder(tokenizer, read_stop_tokens(str(model), None, tokenizer))
    client = OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    messages: list[Any] = [ONE, CALLS_ONE, RESULT]
    tools: Any = TOOLS
    completion: Any = client.chat.completions.create(
        model="caller",
        messages=messages,
        tools=tools,
        tool_choice=choice,  # type: ignore[call-overload]
        max_tokens=1,
        extra_body={"return_token_ids": True},
    )
    assert completion.prompt_token_ids == encoder.encode_answer(messages, ANSWER, TOOLS).prompt


@pytest.mark.parametrize("field", ["tool_call_parser", "reasoning_parser"])
def test_a_parser_that_vllm_does_not_have_is_refused(
    root: Path, tmp_path: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(root / "claims" / "models" / "tiny")
    log = tmp_path / "termination-log"
    unknown: Any = {field: "hermess"}
    config = ServerConfig(MODEL_URI, model, None, "", "", str(root), 8, termination_log=str(log), **unknown)
    for name, value in config.to_env().items():
        monkeypatch.setenv(name, value)
    assert run_forked("finetune_serving.gateway.launch", ["serve"], tmp_path / "log", 120) == ExitCode.BAD_CONFIG
    name = "engine.toolCallParser" if field == "tool_call_parser" else "engine.reasoningParser"
    assert log.read_text().startswith(
        f"{name}: the vLLM in this image has no parser 'hermess': use Auto, None or one of"
    )


def is_valid(name: str, arguments: Any) -> bool:
    """Return whether a call matches the schema of its tool."""
    from jsonschema import Draft202012Validator

    schemas: dict[str, Any] = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    return bool(Draft202012Validator(schemas[name]).is_valid(arguments))
