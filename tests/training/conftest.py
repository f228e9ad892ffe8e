"""A tiny model and a small job that was trained on it."""

from pathlib import Path

import pytest
from model.tiny import make_tiny_model
from workplace import Workplace, make_workplace, price_chats


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("training").addoption("--kills", type=int, default=2, help="how often a training is killed")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base model."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A job that was prepared and trained without an interruption."""
    workplace = make_workplace(tmp_path_factory.mktemp("trained"), model, price_chats(40))
    status, _ = workplace.run("prepare")
    assert status == 0, workplace.log
    status, report = workplace.run("train", "--attempt=1")
    assert status == 0, workplace.log
    assert report is not None
    return workplace
