"""Clients of OpenAI's API, as their users install them, against the server: what each gets is what plain HTTP gets.

They are installed below `.cache/clients` on first use (`make .cache/clients/ready`), away from the packages of vLLM.
"""

import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cluster.layout import CACHE, ROOT
from serving.vllm_server import KEY, Server

SCRIPTS = ROOT / "tests" / "clients"
INSTALLED = CACHE / "clients"
QUESTION = "what does thing 7 cost?"
TOKENS = 16
"""Tokens of an answer: OpenAI's minimum for responses, which some clients know."""
ARGUMENTS = {"thing": "kettle"}
TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
"""The events of a streamed answer of text in their order, each kind once."""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Install the clients, unless they are up to date."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--directory", str(ROOT), ".cache/clients/ready"], check=True)


@pytest.fixture
def answer(server: Server) -> str:
    """The answer to the clients' question."""
    server.set_adapter_without_thinking("bot", server.root / "claims" / "out" / "first")
    body, _ = server.post("/v1/responses", model="bot", input=QUESTION, temperature=0, max_output_tokens=TOKENS)
    return str(json.loads(body)["output"][0]["content"][0]["text"])


def run(*command: str, **environment: str) -> str:
    """Return the standard output of a program, whose modules are compiled once instead of on each import."""
    variables = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": ""} | environment
    completed = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=300)
    assert completed.returncode == 0, completed.stderr[-3000:]
    return completed.stdout


def run_client(environment: str, script: str, server: Server) -> dict[str, Any]:
    """Return what a script of `tests/clients` prints."""
    python = str(INSTALLED / environment / "bin" / "python")
    # litellm otherwise looks up the prices of models.
    output = run(python, str(SCRIPTS / script), f"{server.url}/v1", KEY, LITELLM_LOCAL_MODEL_COST_MAP="True")
    return dict(json.loads(output))


def read_call(call: dict[str, str]) -> tuple[str, Any]:
    """Return the name and the arguments of a tool call."""
    return call["name"], json.loads(call["arguments"])


def test_openai_python(server: Server, answer: str) -> None:
    result = run_client("openai3", "run_openai.py", server)
    assert (result["models"], result["model"], result["version"]) == (["base", "bot"], "bot", "bot@first")
    assert result["missing_model"] == ["model_not_found", "model", "invalid_request_error"]
    assert (result["chat"], result["chat_stream"]) == (["bot", answer], ["bot", answer, TOKENS])
    assert [read_call(call) for call in result["chat_tool"]] == [("look_up", ARGUMENTS)]
    assert (result["chat_parsed"], result["response_parsed"]) == (True, True)
    assert (result["response"], result["response_usage"]) == (["bot", answer, "incomplete"], TOKENS)
    assert list(dict.fromkeys(result["response_stream"])) == TEXT_EVENTS
    assert result["response_stream_text"] == answer
    kind, name, arguments = result["response_tool"]
    assert (kind, name, json.loads(arguments)) == ("function_call", "look_up", ARGUMENTS)
    assert result["response_continued"] == ["bot", "incomplete"]
    assert result["response_refused"] == ["previous_response_id", "invalid_request_error", None]


def test_openai_node(server: Server, answer: str) -> None:
    environment = {"NODE_PATH": str(INSTALLED / "node_modules")}
    result = json.loads(run("node", str(SCRIPTS / "run_openai.cjs"), f"{server.url}/v1", KEY, **environment))
    assert (result["models"], result["model"]) == (["base", "bot"], "bot@first")
    assert result["missing_model"] == [True, "model_not_found", "model"]
    assert (result["chat"], result["chat_stream"]) == (["bot", answer], answer)
    assert [read_call(call) for call in result["chat_tool"]] == [("look_up", ARGUMENTS)]
    assert result["response"] == ["bot", answer, "incomplete"]
    assert list(dict.fromkeys(result["response_stream"])) == TEXT_EVENTS
    assert result["response_stream_text"] == answer


def test_litellm(server: Server, answer: str) -> None:
    result = run_client("openai2", "run_litellm.py", server)
    assert (result["chat"], result["chat_stream"]) == (["bot", answer, TOKENS], answer)
    assert result["response"] == ["bot", answer]
    assert result["too_long"]


def test_langchain(server: Server, answer: str) -> None:
    result = run_client("openai3", "run_langchain.py", server)
    assert (result["chat"], result["chat_stream"]) == (["bot", answer], answer)
    assert (result["chat_tool"], result["chat_parsed"]) == ([["LookUp", ARGUMENTS]], True)
    assert (result["response"], result["response_stream"]) == (answer, answer)


def test_llamaindex(server: Server, answer: str) -> None:
    assert run_client("openai2", "run_llamaindex.py", server) == {"chat": answer, "chat_stream": answer}


def test_instructor(server: Server, answer: str) -> None:
    assert run_client("openai2", "run_instructor.py", server) == ARGUMENTS


@pytest.mark.parametrize("options", [[], ["--responses"]])
def test_llm(server: Server, answer: str, options: list[str], tmp_path: Path) -> None:
    program = str(INSTALLED / "openai3" / "bin" / "llm")
    fixed = ["--model", "bot", "--key", KEY, "--option", "temperature", "0", "--option", "max_tokens", str(TOKENS)]
    url = f"{server.url}/v1"
    text = run(program, "openai", "endpoint", url, QUESTION, *fixed, *options, LLM_USER_PATH=str(tmp_path))
    assert text.strip() == answer.strip()
