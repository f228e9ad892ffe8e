"""Warm start: a job continues to train the adapter of a parent job, or merges it and trains a new one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from finetune_api.artifact import describe_artifact
from finetune_api.conditions import Reason
from finetune_api.digest import digest_directory
from finetune_trainer.failures import StageError
from finetune_trainer.prepared import write_hyperparameters
from finetune_trainer.train.micro_batch import load_hyperparameters
from finetune_trainer.train.warm_start import merge_parent_adapter
from workspace import Workspace, make_price_chats, make_workspace

ARTIFACT = "pvc://parent/job-01234567/adapter/1"


def make_child(root: Path, model: Path, parent: Workspace, parent_adapter: str, **artifact: Any) -> Workspace:
    """Create a short job that starts from the adapter of a trained parent job."""
    child = make_workspace(root, model, make_price_chats(2))
    (root / "claims" / "parent").symlink_to(parent.root / "claims" / "finetune-artifacts")
    manifest = json.loads(child.job_path.read_text())
    manifest["warmStart"] = {
        "job": "parent",
        "model": {"uri": "pvc://models/tiny"},
        "artifact": describe_artifact(parent.directory.adapter(1), ARTIFACT).to_dict() | artifact,
        "parentAdapter": parent_adapter,
    }
    child.job_path.write_text(json.dumps(manifest))
    shutil.copytree(parent.directory.train_data.parent, child.directory.train_data.parent)
    chosen = load_hyperparameters(parent.job.spec, parent.directory)
    chosen = chosen.model_copy(update={"epochs": 1.0, "learning_rate": 1e-6})
    write_hyperparameters(child.directory, chosen)
    child.directory.report("prepare").parent.mkdir()
    shutil.copy(parent.directory.report("prepare"), child.directory.report("prepare"))
    return child


def train_first_loss(child: Workspace) -> float:
    """Train, and return the loss of the first step, which shows what the training started from."""
    status, _ = child.run("train", "--attempt=1")
    assert status == 0, child.log
    _, first, *_ = child.directory.history.read_text().splitlines()
    header = child.directory.history.read_text().splitlines()[0].split(",")
    return float(first.split(",")[header.index("train_loss")])


@pytest.fixture(scope="module")
def parent_loss(trained: Workspace) -> float:
    """The loss of the parent job's first step, on the base model."""
    lines = trained.directory.history.read_text().splitlines()
    return float(lines[1].split(",")[lines[0].split(",").index("train_loss")])


def test_the_parent_adapter_is_trained_further(
    trained: Workspace, model: Path, tmp_path: Path, parent_loss: float
) -> None:
    child = make_child(tmp_path, model, trained, "Train")
    assert train_first_loss(child) < 0.6 * parent_loss
    adapter = child.directory.adapter(1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "pvc://models/tiny"
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert digest_directory(adapter) != digest_directory(trained.directory.adapter(1))


def test_the_parent_adapter_is_merged_and_a_new_one_trained(
    trained: Workspace, model: Path, tmp_path: Path, parent_loss: float
) -> None:
    child = make_child(tmp_path, model, trained, "Merge")
    assert train_first_loss(child) < 0.6 * parent_loss
    merged = {path.name for path in child.directory.merged.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= merged
    config = json.loads((child.directory.adapter(1) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == child.job.base.uri == f"{child.job.output_uri}/merged"


@pytest.mark.parametrize(
    ("artifact", "reason"),
    [
        ({"digest": f"sha256:{'0' * 64}"}, Reason.ADAPTER_REFUSED),
        ({"uri": "pvc://parent/none/adapter/1"}, Reason.MODEL_NOT_FOUND),
    ],
)
def test_a_changed_or_missing_parent_adapter_is_refused(
    trained: Workspace, model: Path, tmp_path: Path, artifact: dict[str, str], reason: Reason
) -> None:
    child = make_child(tmp_path, model, trained, "Train", **artifact)
    with pytest.raises(StageError, match="parent") as error:
        merge_parent_adapter(child.job, model, child.directory, PartialState(cpu=True))
    assert error.value.reason == reason
