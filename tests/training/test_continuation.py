"""A job that begins with what an earlier one made: its adapter goes on training, or is merged and a new one begins."""

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
from finetune_trainer.train.warm_start import merge_parent_adapter
from workspace import Workspace, make_price_chats, make_workspace

ARTIFACT = "pvc://earlier/job-01234567/adapter/1"


def follow(root: Path, model: Path, trained: Workspace, what: str, **artifact: Any) -> Workspace:
    """Lay out a short job that begins with the adapter that was trained."""
    values = {"epochs": 1, "learningRate": 1e-6, "batchSize": 2, "maxLength": 64}
    place = make_workspace(root, model, make_price_chats(2), hyperparameters=values)
    (root / "claims" / "earlier").symlink_to(trained.root / "claims" / "finetune-artifacts")
    manifest = json.loads(place.job_path.read_text())
    manifest["warmStart"] = {
        "job": "earlier",
        "model": {"uri": "pvc://models/tiny"},
        "artifact": describe_artifact(trained.directory.adapter(1), ARTIFACT).to_dict() | artifact,
        "parentAdapter": what,
    }
    place.job_path.write_text(json.dumps(manifest))
    shutil.copytree(trained.directory.train_data.parent, place.directory.train_data.parent)
    place.directory.report("prepare").parent.mkdir()
    shutil.copy(trained.directory.report("prepare"), place.directory.report("prepare"))
    return place


def first_loss(place: Workspace) -> float:
    """Return the loss of the first step, which tells what the training began with."""
    status, _ = place.run("train", "--attempt=1")
    assert status == 0, place.log
    _, first, *_ = place.directory.history.read_text().splitlines()
    header = place.directory.history.read_text().splitlines()[0].split(",")
    return float(first.split(",")[header.index("train_loss")])


@pytest.fixture(scope="module")
def earlier_loss(trained: Workspace) -> float:
    """The loss with which the earlier job began, on the base model."""
    lines = trained.directory.history.read_text().splitlines()
    return float(lines[1].split(",")[lines[0].split(",").index("train_loss")])


def test_the_adapter_goes_on_training(trained: Workspace, model: Path, tmp_path: Path, earlier_loss: float) -> None:
    place = follow(tmp_path, model, trained, "Train")
    assert first_loss(place) < 0.6 * earlier_loss
    adapter = place.directory.adapter(1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "pvc://models/tiny"
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert digest_directory(adapter) != digest_directory(trained.directory.adapter(1))


def test_the_adapter_is_merged_and_a_new_one_begins(
    trained: Workspace, model: Path, tmp_path: Path, earlier_loss: float
) -> None:
    place = follow(tmp_path, model, trained, "Merge")
    assert first_loss(place) < 0.6 * earlier_loss
    merged = {path.name for path in place.directory.merged.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= merged
    config = json.loads((place.directory.adapter(1) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == place.job.base.uri == f"{place.job.output_uri}/merged"


@pytest.mark.parametrize(
    ("artifact", "reason"),
    [
        ({"digest": f"sha256:{'0' * 64}"}, Reason.ADAPTER_REFUSED),
        ({"uri": "pvc://earlier/none/adapter/1"}, Reason.MODEL_NOT_FOUND),
    ],
)
def test_a_changed_or_missing_result_is_refused(
    trained: Workspace, model: Path, tmp_path: Path, artifact: dict[str, str], reason: Reason
) -> None:
    place = follow(tmp_path, model, trained, "Train", **artifact)
    with pytest.raises(StageError, match="earlier") as error:
        merge_parent_adapter(place.job, model, place.directory, PartialState(cpu=True))
    assert error.value.reason == reason
