"""A base model without a chat template, served and evaluated with that of `model.chatTemplate`."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finetune.local.ports import find_free_port
from finetune_api.artifact import describe_artifact
from finetune_api.contract.exit_codes import ExitCode
from finetune_api.contract.jobfile import JobDirectory
from finetune_pod.chat import ChatEncoder, EncodedExample
from finetune_pod.template_file import read_template
from model.templates import TEMPLATE, URI, remove_template, write_template
from model.tiny import make_tiny_model
from serving.trained_job import CHATS, TrainedJob
from serving.vllm_server import KEY, MODEL_URI, Server, make_adapter, run_server
from transformers import AutoTokenizer


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the mounted volumes, with a base model without a template, the ConfigMap, and two adapters."""
    root = tmp_path_factory.mktemp("bare")
    model = make_tiny_model(root / "claims" / "models" / "tiny")
    for seed, name in enumerate(("first", "second"), 1):
        make_adapter(model, root / "claims" / "out" / name, seed)
    remove_template(model)
    write_template(root)
    return root


def build_routes(server: Server, **templates: str | None) -> dict[str, Any]:
    """Return routes for adapters that were trained with these templates."""
    digest = read_template(URI, server.root).digest
    routes = server.build_routes({name: [(server.root / "claims" / "out" / name, 100)] for name in templates})
    for route in routes["routes"]:
        if template := templates[route["modelName"]]:
            route["chatTemplate"] = template.format(digest=digest)
    return routes | {"chatTemplate": digest}


@pytest.fixture(scope="module")
def served(bare: Path) -> Iterator[Server]:
    """A server with an adapter that was trained with its template, and one that was trained with another."""
    server = Server(bare, find_free_port())
    server.write_routes(json.dumps(build_routes(server, first="{digest}", second=None)))
    with run_server(server, "--max-adapters=2", f"--chat-template={URI}"):
        yield server


def test_the_server_sends_the_tokens_that_were_trained(served: Server) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(served.root / "claims" / "models" / "tiny")
    tokenizer.chat_template = TEMPLATE
    (encoded,) = ChatEncoder(tokenizer, {tokenizer.eos_token_id}).encode([CHATS[0]])
    assert isinstance(encoded, EncodedExample)
    for name in ("base", "first"):
        body = {"model": name, "messages": CHATS[0]["messages"][:1], "max_tokens": 1, "return_token_ids": True}
        request = urllib.request.Request(
            f"{served.url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            assert json.load(response)["prompt_token_ids"] == encoded.answers["messages"][0].prompt


def test_an_adapter_that_was_trained_with_another_template_is_refused(served: Server) -> None:
    report = served.get("/finetune/loaded")
    states = {model["modelName"]: (model["state"], model["message"]) for model in report["models"]}
    digest = read_template(URI, served.root).digest
    assert states["first"] == ("Loaded", "")
    state, message = states["second"]
    assert state == "Refused"
    assert message.startswith(
        "it was trained with another chat template (the model's own) than this server renders with"
        f" (model.chatTemplate {digest[:19]}): serve it on a server with the same model.chatTemplate"
    )
    assert report["chatTemplate"] == digest


def test_a_changed_template_changes_nothing_in_a_running_server_and_no_pod_starts_with_it(
    served: Server, tmp_path: Path
) -> None:
    write_template(tmp_path, "{{ messages[0].content }}")
    log = tmp_path / "log"
    log.touch()
    arguments = [
        "--max-rank=8",
        "--max-adapters=1",
        f"--routes={served.root / 'routes.json'}",
        f"--chat-template={URI}",
    ]
    command = [sys.executable, "-m", "finetune_serving", f"--root={tmp_path}", "serve", f"--model-uri={MODEL_URI}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100, check=False)
    digest = read_template(URI, served.root).digest
    assert done.returncode == ExitCode.BAD_CONFIG
    assert done.stderr.strip() == (
        f"{URI} was changed since this server started with it: restore the content with the digest {digest[:19]}, or"
        " create another ModelServer"
    )
    write_template(served.root, "{{ messages[0].content }}")
    try:
        assert served.states() == {"first": "Loaded", "second": "Refused"}
        test_the_server_sends_the_tokens_that_were_trained(served)
    finally:
        write_template(served.root)


def test_the_evaluation_measures_with_the_template(bare: Path, tmp_path: Path) -> None:
    """As on a model whose own template is the same."""
    owner = tmp_path / "owner"
    model = make_tiny_model(owner / "claims" / "models" / "tiny")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    make_adapter(model, owner / "claims" / "out" / "first", 1)
    perplexities = []
    for root in (bare, owner):
        job = TrainedJob(root, JobDirectory(root / "claims" / "finetune-artifacts" / "job-01234567", root))
        job.directory.heldout_data.parent.mkdir(parents=True)
        job.prepare(CHATS, metrics=["Perplexity"])
        if root == bare:
            manifest = json.loads((root / "job.json").read_text())
            manifest["spec"]["model"]["chatTemplate"] = URI
            (root / "job.json").write_text(json.dumps(manifest))
            job.directory.chat_template.write_text(TEMPLATE)
        status, report = job.evaluate(describe_artifact(root / "claims" / "out" / "first", "pvc://out/first"))
        assert status == 0, report
        (measured,) = report.evaluation.metrics
        perplexities.append((measured.base, measured.tuned))
    assert perplexities[0] == pytest.approx(perplexities[1])
