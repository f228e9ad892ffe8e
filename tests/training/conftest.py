"""A tiny model and a small job that was trained on it."""

from pathlib import Path

import pytest
from model.tiny import make_tiny_model
from workspace import Workspace, make_price_chats, make_workspace


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("training").addoption("--kills", type=int, default=2, help="how often a training is killed")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base model."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A job that was prepared and trained without an interruption."""
    workspace = make_workspace(tmp_path_factory.mktemp("trained"), model, make_price_chats(40))
    status, _ = workspace.run("prepare")
    assert status == 0, workspace.log
    status, report = workspace.run("train", "--attempt=1")
    assert status == 0, workspace.log
    assert report is not None
    return workspace
