"""Injects real faults of volumes, models, checkpoints and memory; each ends with its reason in docs/faults.md."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import ExitCode
from finetune_api.contract.reports import StageReport
from finetune_trainer.failures import StageError, diagnose
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.train.checkpoints import find_newest_complete, mark_complete, parse_step
from safetensors.torch import load_file, save_file
from workspace import Workspace, make_price_chats, make_workspace

WEIGHTS = "model.safetensors"


def copy_model(workspace: Workspace) -> Path:
    """Replace the model of a job with a copy that a test may change."""
    directory = workspace.root / "claims" / "models" / "tiny"
    source = directory.resolve()
    directory.unlink()
    shutil.copytree(source, directory)
    return directory


def set_config(model: Path, name: str = "config.json", **fields: object) -> None:
    path = model / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def truncate_weights(model: Path) -> None:
    with (model / WEIGHTS).open("r+b") as file:
        file.truncate((model / WEIGHTS).stat().st_size // 2)


def remove_shard(model: Path) -> None:
    """Turn the model into one with two weight files, of which one is missing."""
    (model / WEIGHTS).rename(model / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


def set_template(model: Path, template: str) -> None:
    (model / "chat_template.jinja").write_text(template)


MODELS: dict[str, tuple[Callable[[Path], object], Reason, str]] = {
    "truncated weights": (truncate_weights, Reason.MODEL_DAMAGED, "model.safetensors is damaged or incomplete"),
    "weights of zeros": (
        lambda model: (model / WEIGHTS).write_bytes(bytes(4096)),
        Reason.MODEL_DAMAGED,
        "model.safetensors is damaged or incomplete",
    ),
    "a Git LFS pointer": (
        lambda model: (model / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\nsize 4\n"),
        Reason.MODEL_DAMAGED,
        "copy the model again",
    ),
    "one of two weight files missing": (
        remove_shard,
        Reason.MODEL_DAMAGED,
        "model-00002-of-00002.safetensors is listed in model.safetensors.index.json but missing",
    ),
    "an index that is not JSON": (
        lambda model: (model / "model.safetensors.index.json").write_text("{"),
        Reason.MODEL_DAMAGED,
        "model.safetensors.index.json cannot be read",
    ),
    "pickles only": (
        lambda model: (model / WEIGHTS).rename(model / "pytorch_model.bin"),
        Reason.MODEL_UNSAFE,
        "pickles are never loaded, convert them",
    ),
    "code in its configuration": (
        lambda model: set_config(model, auto_map={"AutoModelForCausalLM": "own.Model"}),
        Reason.MODEL_UNSAFE,
        "contains its own code, which is never run",
    ),
    "no configuration": (
        lambda model: (model / "config.json").unlink(),
        Reason.MODEL_NOT_FOUND,
        "contains no config.json: check that it is the directory of a model",
    ),
    "another architecture": (
        lambda model: set_config(model, architectures=["BertForMaskedLM"]),
        Reason.MODEL_UNSUPPORTED,
        "is BertForMaskedLM: a *ForCausalLM is needed",
    ),
    "no tokenizer": (
        lambda model: (model / "tokenizer.json").unlink(),
        Reason.MODEL_UNSUPPORTED,
        "its tokenizer cannot be loaded",
    ),
    "no chat template": (
        lambda model: (model / "chat_template.jinja").unlink(),
        Reason.TEMPLATE_INVALID,
        "has no chat template: use the instruction-tuned variant",
    ),
    "a chat template that is not Jinja": (
        lambda model: set_template(model, "{% for message in messages %}"),
        Reason.TEMPLATE_INVALID,
        "the chat template fails: Unexpected end of template",
    ),
    "a chat template that omits the answer": (
        lambda model: set_template(model, "{{ messages[0].content }}"),
        Reason.TEMPLATE_INVALID,
        "use another model",
    ),
    "a chat template that accesses Python internals": (
        lambda model: set_template(model, "{{ messages.__class__.__base__.__subclasses__() }}"),
        Reason.TEMPLATE_INVALID,
        "the chat template fails: access to attribute '__class__'",
    ),
}


@pytest.mark.parametrize("fault", MODELS)
def test_a_model_that_cannot_be_used_is_refused_before_training(model: Path, tmp_path: Path, fault: str) -> None:
    inject, reason, message = MODELS[fault]
    workspace = make_workspace(tmp_path, model, make_price_chats(4))
    inject(copy_model(workspace))
    with pytest.raises(StageError, match="pvc://models/tiny") as error:
        prepare(workspace.job, workspace.directory, None, "USD")
    assert error.value.reason is reason
    assert message in str(error.value)


def test_a_full_volume_is_reported(model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(40))
    workspace.directory.train_data.parent.mkdir(parents=True)
    # /dev/full returns ENOSPC for every write.
    workspace.directory.train_data.with_name("source-0.part").symlink_to("/dev/full")
    status, report = workspace.run("prepare")
    assert (status, reason_of(report)) == (ExitCode.STORAGE_FULL, Reason.STORAGE_FULL), workspace.log
    assert report is not None
    assert "enlarge it" in report.message


def test_a_volume_that_fills_up_during_the_training_is_reported(model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(12), hyperparameters={"epochs": 4, "maxLength": 64})
    prepare(workspace.job, workspace.directory, None, "USD")
    workspace.directory.checkpoints.mkdir()
    # Mounted in a separate mount namespace, which ends with the process.
    mount = f"mount -t tmpfs -o size=512k none {workspace.directory.checkpoints}"
    status = run_with_mount(workspace, mount, workspace.command("train", "--attempt=1"))
    assert (status, reason_of(workspace.report())) == (ExitCode.STORAGE_FULL, Reason.STORAGE_FULL), workspace.log


def test_a_read_only_volume_is_reported(model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(12))
    workspace.directory.path.mkdir(parents=True)
    mount = f"mount -o bind,ro {workspace.directory.path} {workspace.directory.path}"
    status = run_with_mount(workspace, mount, workspace.command("prepare"))
    assert status == ExitCode.ACCESS_DENIED, workspace.log
    report = workspace.report()
    assert reason_of(report) is Reason.VOLUME_ACCESS_DENIED
    assert report is not None
    assert "grant the group of the pods access to the volume" in report.message


def run_with_mount(workspace: Workspace, mount: str, command: str) -> int:
    """Run a command in a mount namespace with an additional mount, and return its exit status."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    with (workspace.root / "log").open("a") as log:
        process = subprocess.run(
            [*unshare, "sh", "-c", f"{mount} && exec {command}"], stdout=log, stderr=log, check=False, timeout=300
        )
    return process.returncode


def test_a_nan_loss_fails_the_training(model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(12))
    weights = copy_model(workspace) / WEIGHTS
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, weights, {"format": "pt"})
    prepare(workspace.job, workspace.directory, None, "USD")
    status, report = workspace.run("train", "--attempt=1")
    assert (status, reason_of(report)) == (ExitCode.SOFTWARE, Reason.LOSS_NOT_FINITE), workspace.log


def test_a_training_resumes_from_the_checkpoint_before_a_damaged_one(trained: Workspace, tmp_path: Path) -> None:
    workspace = Workspace(shutil.copytree(trained.root, tmp_path / "copy", symlinks=True))
    for checkpoint in workspace.directory.checkpoints.glob("checkpoint-*"):
        mark_complete(checkpoint)
    newest = find_newest_complete(workspace.directory.checkpoints)
    assert newest is not None
    damaged = newest / "optimizer.pt"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    status, report = workspace.run("train", "--attempt=2")
    assert (status, reason_of(report)) == (ExitCode.SOFTWARE, Reason.CHECKPOINT_DAMAGED), workspace.log
    status, report = workspace.run("train", "--attempt=3")
    assert status == 0, workspace.log
    assert report is not None
    assert report.training is not None
    assert 0 < report.training.resumed_from_step < parse_step(newest)


def test_missing_prepared_data_is_reported(model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(4))
    status, report = workspace.run("train", "--attempt=1")
    assert (status, reason_of(report)) == (ExitCode.NOT_FOUND, Reason.PREPARED_DATA_GONE), workspace.log


def test_out_of_memory_errors_of_the_allocators_are_recognized() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert diagnose(error.value, Reason.TRAINING_FAILED).reason is Reason.OUT_OF_MEMORY
    with pytest.raises(MemoryError) as python:
        bytes(1 << 60)
    assert diagnose(python.value, Reason.TRAINING_FAILED).reason is Reason.OUT_OF_MEMORY
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert diagnose(gpu, Reason.TRAINING_FAILED).reason is Reason.GPU_OUT_OF_MEMORY


def reason_of(report: StageReport | None) -> Reason | None:
    return report.reason if report else None
