"""The tenant's attempts against a real API server, and the operator with the rights of the chart."""

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
    """The API server with our CRDs."""
    with control_plane() as running:
        install_crds(running)
        yield running


@pytest.fixture(scope="session")
def account(cluster: Cluster) -> Account:
    """The operator's account, with the rights that the chart gives it."""
    return install_account(cluster)


@pytest.fixture(scope="session")
def scene(cluster: Cluster, account: Account) -> Iterator[Scene]:
    """The tenant, and the objects of others."""
    with open_scene(cluster, is_thorough=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def operator(account: Account, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The running operator. Its log must hold no unexpected error at the end."""
    running = Operator(account.kubeconfig, tmp_path_factory.mktemp("operator"), account.argument, settings=SETTINGS)
    running.start()
    yield running
    assert running.stop() == 0
    check_log(running.log.read_text())


@pytest.fixture(scope="session")
def player(cluster: Cluster, scene: Scene) -> Iterator[Player]:
    """Simulates the pods; those of the tenant follow the script of the scene."""
    with Player(cluster) as running:
        running.play(TENANT, scene.play)
        yield running
