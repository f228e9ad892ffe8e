"""Real TRL training on a tiny model: it learns, resumes, stops on SIGTERM, and reports what is wrong."""

import gzip
import json
import os
import random
import re
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finetune.local.ports import find_free_port
from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import ExitCode
from finetune_api.digest import digest_directory
from finetune_trainer.train.checkpoints import find_newest_complete, parse_step
from safetensors import safe_open
from waiting import wait_for
from workspace import Workspace, make_price_chats, make_workspace

STEPS = 4 * 32 // 2


def test_the_adapter_has_learned_and_matches_its_digest(trained: Workspace) -> None:
    report = trained.report()
    assert report is not None
    assert report.training is not None
    assert report.artifact is not None
    assert report.training.steps == STEPS
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", trained.log)]
    assert losses[-1] < 0.6 * losses[0]
    adapter = trained.directory.adapter(1)
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert digest_directory(adapter) == report.artifact.digest
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "pvc://models/tiny"
    with safe_open(adapter / "adapter_model.safetensors", "pt") as weights:
        names = set(weights.keys())
    assert not [name for name in names if "lm_head" in name or "embed" in name]
    assert len(names) == 2 * 7 * 2


def test_the_model_card_names_data_and_result(trained: Workspace) -> None:
    card = trained.directory.model_card.read_text()
    statistics = json.loads(trained.directory.report("prepare").read_text())["statistics"]
    assert statistics["digest"] in card
    assert digest_directory(trained.directory.adapter(1)) in card
    assert "have not been compared yet" in card


def test_the_code_of_the_model_card_loads_the_result(trained: Workspace, model: Path) -> None:
    from transformers import AutoTokenizer

    _, _, rest = trained.directory.model_card.read_text().partition("```python\n")
    code, _, _ = rest.partition("```")
    paths = {"pvc://models/tiny": model, f"{trained.job.output_uri}/adapter/1": trained.directory.adapter(1)}
    for uri, path in paths.items():
        assert f'"{uri}"' in code
        code = code.replace(uri, str(path))
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the code is ours
    chat = make_price_chats(1)[0]["messages"]
    tokens = AutoTokenizer.from_pretrained(model).apply_chat_template(chat, return_tensors="pt", return_dict=True)
    tuned = names["model"](**tokens, labels=tokens["input_ids"]).loss
    with names["model"].disable_adapter():
        base = names["model"](**tokens, labels=tokens["input_ids"]).loss
    assert tuned < 0.8 * base


def test_prepare_estimates_the_steps_of_the_training(trained: Workspace) -> None:
    statistics = json.loads(trained.directory.report("prepare").read_text())["statistics"]
    assert statistics["steps"] == STEPS
    assert statistics["trainExamples"] + statistics["heldoutExamples"] == 40


def test_the_same_seed_gives_the_same_adapter(trained: Workspace) -> None:
    for checkpoint in trained.directory.checkpoints.glob("checkpoint-*"):
        (checkpoint / "whole.json").unlink()
    status, report = trained.run("train", "--attempt=2")
    assert status == 0, trained.log
    assert report is not None
    assert report.artifact is not None
    assert report.artifact.digest == digest_directory(trained.directory.adapter(1))


def test_a_killed_training_repeats_at_most_a_save_interval_and_ends_like_an_uninterrupted_one(
    model: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    kills = pytestconfig.getoption("--kills")
    values = {"epochs": 40, "learningRate": 0.001, "batchSize": 1, "maxLength": 64}
    workspace = make_workspace(tmp_path / "killed", model, make_price_chats(12), hyperparameters=values)
    assert workspace.run("prepare")[0] == 0, workspace.log
    generator = random.Random(7)  # noqa: S311 - not used for security
    saved = 0
    for attempt, step in enumerate(sorted(generator.sample(range(5, 385), kills)), 1):
        signum = (signal.SIGKILL, signal.SIGTERM)[attempt % 2]
        reached = kill(workspace, attempt, max(step, saved + 1), signum)
        assert f"from step {saved}\n" in workspace.log
        checkpoint = find_newest_complete(workspace.directory.checkpoints)
        before, saved = saved, parse_step(checkpoint) if checkpoint else 0
        assert saved >= before
        assert reached - saved <= (workspace.job.spec.compute.save_steps if signum == signal.SIGKILL else 0)
    status, report = workspace.run_subprocess("train", f"--attempt={kills + 1}")
    assert status == 0, workspace.log
    assert report
    assert report.training
    assert (report.training.resumed_from_step, report.training.steps) == (saved, 40 * 10)

    uninterrupted = make_workspace(tmp_path / "uninterrupted", model, make_price_chats(12), hyperparameters=values)
    assert uninterrupted.run("prepare")[0] == 0, uninterrupted.log
    assert uninterrupted.run_subprocess("train", "--attempt=1")[0] == 0, uninterrupted.log
    # If they differ, the history shows at which step.
    assert workspace.directory.history.read_text() == uninterrupted.directory.history.read_text()
    assert digest_directory(workspace.directory.adapter(kills + 1)) == digest_directory(
        uninterrupted.directory.adapter(1)
    )


def test_a_training_stopped_before_its_first_step_uses_up_no_retry(model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(12))
    assert workspace.run("prepare")[0] == 0, workspace.log
    process = workspace.start("train", "--attempt=1")
    wait_for(lambda: bool(list_descendants(process.pid)), "the training's process")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ExitCode.STOPPED, workspace.log


def kill(workspace: Workspace, attempt: int, step: int, signum: signal.Signals) -> int:
    """Start an attempt, kill it after it has reached a step, and return the last step that was observed."""
    port = find_free_port()
    process = workspace.start("train", f"--attempt={attempt}", f"--metrics-port={port}")
    wait_for(lambda: read_step(port) >= step, lambda: workspace.log, 120)
    reached = read_step(port)
    if signum == signal.SIGTERM:
        process.send_signal(signum)
        assert process.wait(60) == ExitCode.STOPPED, workspace.log
        report = workspace.report()
        assert report
        assert report.reason is Reason.RETRYING
    else:
        for child in list_descendants(process.pid):
            os.kill(child, signum)
        assert process.wait(60) == ExitCode.SOFTWARE
    return reached


def read_step(port: int) -> int:
    """Return the completed steps of a running training; -1 while it serves no metrics."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as response:
            lines = response.read().decode().splitlines()
    except OSError:
        return -1
    return int(float(next(line.rpartition(" ")[2] for line in lines if line.startswith("finetune_train_step "))))


def list_descendants(pid: int) -> list[int]:
    """Return the IDs of all descendants of a process."""
    output = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in output.splitlines()]
    direct = [child for child, parent in parents if parent == pid]
    return [*direct, *(descendant for child in direct for descendant in list_descendants(child))]


@pytest.mark.parametrize(
    ("lines", "reason", "message"),
    [
        (["not json", *make_price_chats(3)], Reason.DATASET_INVALID, "1 of 4 lines are wrong: line 1: not JSON"),
        (
            make_price_chats(2),
            Reason.DATASET_INVALID,
            "at least 3 different examples are needed to hold some out, and there are 2",
        ),
        ([], Reason.DATASET_INVALID, "is empty"),
        (
            [{"messages": [{"role": "user", "content": "x " * 200}, {"role": "assistant", "content": "y"}]}],
            Reason.DATASET_INVALID,
            "the first 64 tokens contain no part of an answer: raise hyperparameters.maxLength",
        ),
    ],
)
def test_bad_data_is_refused_before_training(
    model: Path, tmp_path: Path, lines: list[Any], reason: Reason, message: str
) -> None:
    workspace = make_workspace(tmp_path, model, lines)
    status, report = workspace.run("prepare")
    assert status == ExitCode.BAD_DATA, workspace.log
    assert report is not None
    assert report.reason is reason
    assert message in report.message
    assert not workspace.directory.train_data.exists()


def test_a_folder_of_tables_is_read_as_one_dataset(model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, model, [], dataset={"train": {"uri": "pvc://data/shop"}, "holdout": 0.25})
    folder = tmp_path / "claims" / "data" / "shop"
    folder.mkdir()
    rows = [{"prompt": f"what does thing {number} cost?", "completion": f"{number} euros"} for number in range(20)]
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"prompt,completion\n" + b"".join(map(format_csv, rows[:12]))))
    pq.write_table(pa.Table.from_pylist(rows[12:]), folder / "b.parquet")
    (folder / "README.md").write_text("no data")
    status, report = workspace.run("prepare")
    assert status == 0, workspace.log
    assert report is not None
    assert report.dataset is not None
    assert (report.dataset.format, report.dataset.train_examples, report.dataset.heldout_examples) == (
        "PromptCompletion",
        15,
        5,
    )
    examples = [json.loads(line) for line in workspace.directory.train_data.read_text().splitlines()]
    assert all([message["role"] for message in example["messages"]] == ["user", "assistant"] for example in examples)


def format_csv(row: dict[str, str]) -> bytes:
    return f'"{row["prompt"]}",{row["completion"]}\n'.encode()


def test_plain_text_is_learned(model: Path, tmp_path: Path) -> None:
    texts = [{"text": f"the thing number {number} costs {number} euros"} for number in range(30)]
    gates = {"gates": [{"metric": "RougeL", "minGain": 0.1}]}
    workspace = make_workspace(tmp_path, model, texts, evaluation=gates)
    status, report = workspace.run("prepare")
    assert (status, report.reason if report else None) == (ExitCode.BAD_CONFIG, Reason.INVALID_SPEC)
    job = json.loads(workspace.job_path.read_text())
    del job["spec"]["evaluation"]
    workspace.job_path.write_text(json.dumps(job))
    assert workspace.run("prepare")[0] == 0, workspace.log
    status, report = workspace.run("train", "--attempt=1")
    assert status == 0, workspace.log
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", workspace.log)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("spec", "code", "reason"),
    [
        ({"model": {"uri": "pvc://models/none"}}, ExitCode.NOT_FOUND, Reason.MODEL_NOT_FOUND),
        ({"dataset": {"train": {"uri": "pvc://data/none"}}}, ExitCode.NOT_FOUND, Reason.DATASET_NOT_FOUND),
        ({"method": {}}, ExitCode.BAD_CONFIG, Reason.INVALID_SPEC),
    ],
)
def test_a_missing_source_fails_with_its_reason(
    model: Path, tmp_path: Path, spec: dict[str, Any], code: ExitCode, reason: Reason
) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(4), **spec)
    status, report = workspace.run("prepare")
    assert status == code, workspace.log
    assert report is not None
    assert report.reason is reason


def test_a_model_that_contains_code_is_never_loaded(model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(4))
    hostile = tmp_path / "claims" / "models" / "tiny"
    hostile.unlink()
    hostile.mkdir()
    for path in model.iterdir():
        (hostile / path.name).write_bytes(path.read_bytes())
    marker = tmp_path / "ran"
    (hostile / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w')")
    status, report = workspace.run("prepare")
    assert status == ExitCode.BAD_CONFIG
    assert report is not None
    assert report.reason is Reason.MODEL_UNSAFE
    assert "contains its own code" in report.message
    assert not marker.exists()
