"""A separate API server, since its CRDs come from the installed release; the pods are simulated."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api.player import Player
from cluster.control_plane import Cluster, control_plane
from upgrade.release import NAME, Operator, Release, run_helm, unpack_previous

VALUES: dict[str, Any] = {
    # So long that a change that the watches miss makes a test fail.
    "resyncSeconds": 600,
    "trainer": {"image": {"tag": "1"}},
    # A fixed image prevents a restart of servers at an upgrade: docs/upgrading.md.
    "serving": {"image": {"tag": "1"}},
}
"""Values of both charts."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The API server without our CRDs."""
    with control_plane() as running:
        yield running


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The previous release."""
    return unpack_previous(tmp_path_factory.mktemp("previous"))


@pytest.fixture
def player(cluster: Cluster) -> Iterator[Player]:
    """Simulates the pods of every namespace."""
    with Player(cluster) as running:
        yield running


@pytest.fixture
def operator(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[[Release], Operator]]:
    """Start operators of releases; stop the running ones at the end."""
    started: list[Operator] = []

    def start(release: Release) -> Operator:
        started.append(Operator(cluster, release, tmp_path / f"operator-{len(started)}"))
        started[-1].start()
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def namespace(cluster: Cluster, previous: Release, request: pytest.FixtureRequest) -> Iterator[str]:
    """A tenant's namespace with the previous release installed; deletes all jobs and the release at the end."""
    run_helm(cluster, "install", NAME, str(previous.chart), "--create-namespace", values=VALUES)
    name = f"tenant-{zlib.crc32(request.node.name.encode()):08x}"
    cluster.run_kubectl("create", "namespace", name)
    yield name
    cluster.run_kubectl("delete", "ftj,ms", "--all", "-n", name)
    run_helm(cluster, "uninstall", NAME)
