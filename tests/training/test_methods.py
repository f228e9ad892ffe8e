"""Every method and every kind of adapter learns on a tiny model, as the metrics of its training show."""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from finetune_api.contract.reports import StageReport
from rows import GRADER, PAIRS, PROMPTS
from scipy.stats import binomtest
from workspace import Workspace, make_price_chats, make_workspace

VALUES = {"epochs": 4, "learningRate": 0.002, "batchSize": 4, "maxLength": 64}


def train(root: Path, model: Path, rows: list[Any], **spec: Any) -> tuple[Workspace, StageReport]:
    workspace = make_workspace(root, model, rows, **({"hyperparameters": VALUES} | spec))
    for stage in (["prepare"], ["train", "--attempt=1"]):
        status, report = workspace.run(*stage)
        assert status == 0, workspace.log
    assert report is not None
    return workspace, report


def column(workspace: Workspace, name: str) -> list[float]:
    with workspace.directory.history.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize(
    ("adapter", "files"),
    [
        ({"rslora": {"rank": 8, "targetModules": ["q_proj", "v_proj", "down_proj"]}}, "adapter"),
        ({"qlora": {"rank": 8}}, "adapter"),
        ({"dora": {"rank": 8}}, "model"),
        ({"full": {"layers": [1]}}, "model"),
    ],
)
def test_every_adapter_learns(model: Path, tmp_path: Path, adapter: dict[str, Any], files: str) -> None:
    workspace, report = train(
        tmp_path, model, make_price_chats(40), adapter=adapter, method={"sft": {"packing": False}}
    )
    losses = column(workspace, "train_loss")
    assert statistics.mean(losses[-4:]) < 0.8 * statistics.mean(losses[:4])
    assert report.artifact is not None
    assert report.artifact.kind == files.capitalize()
    directory = workspace.directory.model(1) if files == "model" else workspace.directory.adapter(1)
    names = {path.name for path in directory.iterdir()}
    assert ("config.json" in names, "adapter_config.json" in names) == (files == "model", files == "adapter")
    assert "tokenizer.json" in names or files == "adapter"


def test_frozen_layers_do_not_change(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    workspace, _ = train(tmp_path, model, make_price_chats(12), adapter={"full": {"layers": [1]}})
    before, after = (load_file(directory / "model.safetensors") for directory in (model, workspace.directory.model(1)))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all(".layers.1." in name for name in changed)


@pytest.mark.parametrize("method", ["dpo", "orpo", "kto", "reward"])
def test_preferences_are_learned(model: Path, tmp_path: Path, method: str) -> None:
    workspace, report = train(tmp_path, model, PAIRS, method={method: {}})
    assert report.training is not None
    if method == "kto":
        losses = column(workspace, "train_loss")
        assert statistics.mean(losses[-8:]) < statistics.mean(losses[:8]) - 0.05
        return
    accuracies = column(workspace, "train_accuracy")
    last = accuracies[len(accuracies) // 2 :]
    correct = round(sum(last) * VALUES["batchSize"])
    assert binomtest(correct, round(len(last) * VALUES["batchSize"])).proportion_ci().low > 0.5


def test_grpo_raises_the_rewards(model: Path, tmp_path: Path) -> None:
    method = {"grpo": {"graders": [GRADER], "numGenerations": 8, "maxCompletionLength": 4}}
    values = VALUES | {"batchSize": 16, "epochs": 3, "learningRate": 0.005}
    workspace, _ = train(tmp_path, model, PROMPTS, method=method, hyperparameters=values, evaluation={"gates": []})
    rewards = column(workspace, "train_accuracy")
    quarter = len(rewards) // 4
    first, last = (round(sum(part) * 16) for part in (rewards[:quarter], rewards[-quarter:]))
    assert last > first
    assert binomtest(last, last + first).proportion_ci().low > 0.5


def test_early_stopping_ends_with_the_best_checkpoint(model: Path, tmp_path: Path) -> None:
    stopping = {"patience": 1, "evalSteps": 5, "fraction": 0.25}
    values = VALUES | {"epochs": 40, "learningRate": 0.02, "earlyStopping": stopping, "lrScheduler": "Constant"}
    workspace, report = train(tmp_path, model, make_price_chats(40), hyperparameters=values)
    assert report.training is not None
    assert report.training.stopped_early
    validations = column(workspace, "valid_loss")
    assert report.training.steps == 5 * len(validations) == 5 * len(column(workspace, "valid_mean_token_accuracy"))
    assert len(column(workspace, "train_loss")) == report.training.steps
    state = json.loads(
        max(
            workspace.directory.checkpoints.glob("checkpoint-*/trainer_state.json"),
            key=lambda path: path.stat().st_mtime,
        ).read_text()
    )
    assert state["best_metric"] == pytest.approx(min(validations), abs=1e-5)


def test_two_processes_learn_the_same_as_one(model: Path, tmp_path: Path) -> None:
    losses = []
    for processes in (1, 2):
        compute = {"processesPerNode": processes, "saveSteps": 100}
        workspace, report = train(tmp_path / str(processes), model, make_price_chats(24), compute=compute)
        assert report.training is not None
        assert report.training.micro_batch_size == 4 // processes
        assert not column(workspace, "valid_loss")
        losses.append(column(workspace, "train_loss"))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_micro_batch_is_halved_when_memory_runs_out(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'train' in sys.orig_argv:\n"
        "    import torch\n"
        "    forward = torch.nn.Embedding.forward\n"
        "    def limited(self, ids):\n"
        "        if len(ids) > 2:\n"
        "            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')\n"
        "        return forward(self, ids)\n"
        "    torch.nn.Embedding.forward = limited\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "faults"))
    values = VALUES | {"batchSize": 8}
    workspace = make_workspace(tmp_path / "job", model, make_price_chats(24), hyperparameters=values)
    assert workspace.run("prepare")[0] == 0, workspace.log
    status, report = workspace.run_subprocess("train", "--attempt=1")
    assert status == 0, workspace.log
    assert report is not None
    assert report.training is not None
    assert report.training.micro_batch_size == 2
    assert "out of memory with a micro-batch of 8: restarting with 4" in workspace.log
    assert "out of memory with a micro-batch of 4: restarting with 2" in workspace.log
    assert report.training.steps == 4 * 3


def test_a_single_step_learns(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    values = {"epochs": 1, "learningRate": 0.002, "batchSize": 16, "maxLength": 64}
    workspace, report = train(tmp_path, model, make_price_chats(12), hyperparameters=values)
    assert report.training is not None
    assert report.training.steps == 1
    adapter = load_file(workspace.directory.adapter(1) / "adapter_model.safetensors")
    assert all(tensor.abs().max() > 0 for name, tensor in adapter.items() if ".lora_B." in name)


def test_a_training_without_an_effect_fails(model: Path, tmp_path: Path) -> None:
    values = VALUES | {"epochs": 2, "learningRate": 1e-30}
    workspace = make_workspace(tmp_path, model, PAIRS[:12], method={"dpo": {}}, hyperparameters=values)
    assert workspace.run("prepare")[0] == 0, workspace.log
    status, report = workspace.run("train", "--attempt=1")
    assert report is not None
    assert (status, report.reason) == (70, "NothingLearned")
    assert report.message.startswith("the loss was 0.6931 in all")
