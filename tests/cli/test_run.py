"""`finetune run` with the real programs: a job on this machine from its data to a model that answers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from finetune.local.store import Store
from model.tiny import make_tiny_model
from waiting import wait_for
from workspace import make_price_chats

QUESTION = "what does thing 7 cost?"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest with its data beside it, and a tiny base model."""
    make_tiny_model(tmp_path / "models" / "tiny")
    chats = make_price_chats(52)
    for name, part in (("train", chats[:40]), ("heldout", chats[40:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in part))
    spec: dict[str, Any] = {
        "model": {"uri": "pvc://models/tiny"},
        "dataset": {
            "train": {"uri": "configmap://data/train.jsonl"},
            "validation": {"uri": "configmap://data/heldout.jsonl"},
        },
        "method": {"sft": {"packing": False}},
        "adapter": {"lora": {"rank": 8}},
        "hyperparameters": {"epochs": 50, "learningRate": 0.005, "batchSize": 2, "maxLength": 64},
        "compute": {"saveSteps": 10},
        "evaluation": {"metrics": ["Perplexity"], "gates": [{"metric": "Perplexity", "minGain": 0}]},
        "serving": {"modelName": "prices", "template": {"lora": {"maxRank": 8}}},
    }
    path = tmp_path / "job.yaml"
    document = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "prices"}}
    path.write_text(yaml.safe_dump(document | {"spec": spec}))
    return path


@contextmanager
def start(manifest: Path, stdin: int = subprocess.DEVNULL) -> Iterator["subprocess.Popen[str]"]:
    """Run the job for the time of the block."""
    directory = manifest.parent
    command = [sys.executable, "-m", "finetune", "run", str(manifest), f"--mount=models={directory / 'models'}"]
    command += [f"--directory={directory / 'runs'}", f"--ask={QUESTION}"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, stdin=stdin, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


def read_status(manifest: Path) -> dict[str, Any]:
    job = Store(manifest.parent / "runs").get("FineTuneJob", "prices")
    return dict(job.get("status", {})) if job else {}


def test_an_interrupted_run_continues_and_ends_with_a_model_that_answers(manifest: Path) -> None:
    with start(manifest) as interrupted:

        def has_trained() -> bool:
            assert interrupted.poll() is None, interrupted.communicate()
            return bool(read_status(manifest).get("progress", {}).get("step", 0) > 20)

        wait_for(has_trained, "steps of the training", 300)
        interrupted.send_signal(signal.SIGINT)
        output, _ = interrupted.communicate(timeout=120)
        assert (interrupted.returncode, "run the same command again" in output) == (130, True), output

    with start(manifest) as finished:
        output, _ = finished.communicate(timeout=600)
        assert finished.returncode == 0, output
    status = read_status(manifest)
    assert (status["stage"], status["attempts"]["train"]) == ("Complete", 2)
    assert status["training"]["resumedFromStep"] >= 20
    answers = {line.split(maxsplit=1)[0]: line for line in output.splitlines() if line.startswith(("base ", "prices "))}
    assert answers.keys() == {"base", "prices"}
    assert answers["base"].split(maxsplit=1)[1:] != answers["prices"].split(maxsplit=1)[1:]

    keyboard, terminal = os.openpty()
    os.write(keyboard, f"{QUESTION}\n\x04".encode())
    with start(manifest, stdin=terminal) as again:
        repeated, _ = again.communicate(timeout=600)
        assert again.returncode == 0, repeated
    assert read_status(manifest)["attempts"] == status["attempts"]
    assert answers["prices"] in repeated
    chat = repeated[repeated.index("Chat with prices") :]
    assert answers["prices"].removeprefix("prices").strip() in chat
