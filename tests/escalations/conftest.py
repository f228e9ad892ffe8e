"""The tenant's attempts against a real API server and the operator with the chart's own rights."""

from collections.abc import Iterator

import pytest
from api.account import Account, install_account
from api.conftest import Operator
from api.player import Player
from cluster.control_plane import Cluster, control_plane, install_crds
from escalations.scene import SETTINGS, TENANT, Scene, open_scene
from operator_log import check_log


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The API server with our kinds."""
    with control_plane() as running:
        install_crds(running)
        yield running


@pytest.fixture(scope="session")
def account(cluster: Cluster) -> Account:
    """The operator's account, with the rights that the chart gives it."""
    return install_account(cluster)


@pytest.fixture(scope="session")
def scene(cluster: Cluster, account: Account) -> Iterator[Scene]:
    """The tenant, and what belongs to others."""
    with open_scene(cluster, is_thorough=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def operator(account: Account, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The running operator; at its end it must have told of no unexpected error."""
    running = Operator(account.kubeconfig, tmp_path_factory.mktemp("operator"), account.argument, settings=SETTINGS)
    running.start()
    yield running
    assert running.stop() == 0
    check_log(running.log.read_text())


@pytest.fixture(scope="session")
def player(cluster: Cluster, scene: Scene) -> Iterator[Player]:
    """Plays the pods, those of the tenant as the scene wants it."""
    with Player(cluster) as playing:
        playing.play(TENANT, scene.play)
        yield playing
