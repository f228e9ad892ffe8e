"""Metrics of a real training arrive at real trackers; an unreachable tracker only causes a warning."""

import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finetune.local.ports import find_free_port
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training.test_methods import VALUES, column
from waiting import wait_for
from workspace import Workspace, make_price_chats, make_workspace


def train_tracked(root: Path, model: Path, tracking: dict[str, Any]) -> Workspace:
    values = VALUES | {"epochs": 1}
    workspace = make_workspace(root, model, make_price_chats(24), hyperparameters=values, tracking=tracking)
    for stage in (["prepare"], ["train", "--attempt=1"]):
        status, _ = workspace.run(*stage)
        assert status == 0, workspace.log
    return workspace


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server for these tests."""
    directory = tmp_path_factory.mktemp("mlflow")
    port = find_free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{directory}/runs.db", f"--artifacts-destination={directory}/artifacts"]
    with (directory / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{address}/health"), (directory / "log").read_text, 120)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_every_tracker_receives_the_losses(model: Path, tmp_path: Path, mlflow_server: str) -> None:
    from mlflow.tracking import MlflowClient

    wandb = {"project": "shop", "mode": "Offline"}
    mlflow = {"trackingUri": mlflow_server, "experiment": "shop"}
    workspace = train_tracked(tmp_path, model, {"tensorBoard": {}, "wandb": wandb, "mlflow": mlflow})
    assert "is disabled" not in workspace.log
    losses = pytest.approx(column(workspace, "train_loss"), abs=1e-5)
    events = EventAccumulator(str(workspace.directory.tensorboard))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == losses
    (file,) = workspace.directory.tensorboard.parent.glob("wandb/offline-run-*/run-job-01234567.wandb")
    assert read_wandb_losses(file.read_bytes()) == losses
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("shop")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.tags["uid"]) == ("job-1", "FINISHED", "0123456789")
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")] == losses


def test_a_training_continues_without_its_tracker(model: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        mlflow = {"trackingUri": f"http://127.0.0.1:{closed.getsockname()[1]}", "experiment": "shop"}
        workspace = train_tracked(tmp_path, model, {"mlflow": mlflow, "tensorBoard": {}})
    assert "MLflow failed and is disabled; the training continues" in workspace.log
    assert list(workspace.directory.tensorboard.glob("events.out.tfevents.*"))
    assert list(workspace.directory.adapter(1).iterdir())


def read_wandb_losses(content: bytes) -> list[float]:
    """Return the losses in the file of an offline run: protobuf records in LevelDB's log format after 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2
    losses, data, position, block = [], b"", 7, 32_768
    while position < len(content):
        if block - position % block < 7:
            position += block - position % block
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        data += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last fragment of one
            items = messages.Record.FromString(data).history.item
            losses += [float(item.value_json) for item in items if "train/loss" in (item.key, *item.nested_key)]
            data = b""
    return losses
