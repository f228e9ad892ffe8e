"""An API server of this tier's own, since its kinds are of the release that is installed; pods are played."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api.player import Player
from cluster.control_plane import Cluster, control_plane
from upgrade.release import NAME, Operator, Release, run_helm, unpack_previous

VALUES: dict[str, Any] = {
    "trainer": {"image": {"tag": "1"}},
    # Whoever wants to choose when servers begin anew names their image, docs/upgrading.md.
    "serving": {"image": {"tag": "1"}},
}
"""Values of both charts."""
_RARELY = 600
"""Seconds between two resyncs: a change that the watches miss must make a test fail."""
PREVIOUS_VALUES = VALUES | {"auditSeconds": _RARELY}
CURRENT_VALUES = VALUES | {"resyncSeconds": _RARELY}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The API server, without our kinds."""
    with control_plane() as running:
        yield running


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release before this one."""
    return unpack_previous(tmp_path_factory.mktemp("previous"))


@pytest.fixture
def player(cluster: Cluster) -> Iterator[Player]:
    """Plays the pods of every namespace."""
    with Player(cluster) as playing:
        yield playing


@pytest.fixture
def operator(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[[Release], Operator]]:
    """Starts the operator of a release; whatever still runs at the end is stopped."""
    started: list[Operator] = []

    def start(release: Release) -> Operator:
        started.append(Operator(cluster, release, tmp_path / f"operator-{len(started)}"))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def namespace(cluster: Cluster, previous: Release, request: pytest.FixtureRequest) -> Iterator[str]:
    """A tenant's namespace, where the release before this one is installed; both and all jobs are gone at the end."""
    run_helm(cluster, "install", NAME, str(previous.chart), "--create-namespace", values=PREVIOUS_VALUES)
    name = f"tenant-{zlib.crc32(request.node.name.encode()):08x}"
    cluster.run_kubectl("create", "namespace", name)
    yield name
    cluster.run_kubectl("delete", "ftj,ms", "--all", "-n", name)
    run_helm(cluster, "uninstall", NAME)
