"""A real node: cluster, images, operator by Helm, a namespace with a model and data."""

from collections.abc import Iterator

import pytest
from cluster.control_plane import OPERATOR_NAMESPACE
from cluster.lifecycle import down, up
from e2e.installation import OPERATOR_LABEL, install_operator, prepare_namespace
from e2e.job_sets import build_methods
from e2e.kubectl import Kubectl
from e2e.prometheus import Prometheus, run_prometheus
from operator_log import check_log


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("e2e").addoption(
        "--requests", type=int, default=500, help="requests while versions and pods change"
    )


@pytest.fixture(scope="session")
def kubectl() -> Iterator[Kubectl]:
    """An empty cluster with the project's images. Stops a running cluster first: its pods would use the CPU cores."""
    down()
    yield Kubectl(up(images=True))
    down()


@pytest.fixture(scope="session")
def operator(kubectl: Kubectl) -> Iterator[str]:
    """The operators, installed by the chart in a namespace that admits restricted pods only; returns the namespace."""
    install_operator(kubectl)
    yield OPERATOR_NAMESPACE
    check_log(kubectl.run("logs", "-n", OPERATOR_NAMESPACE, "-l", OPERATOR_LABEL, "--tail=-1"))


@pytest.fixture(scope="session")
def namespace(kubectl: Kubectl, operator: str) -> str:
    """A tenant's namespace that admits restricted pods only, with a base model and data."""
    name = "team"
    prepare_namespace(kubectl, name)
    return name


@pytest.fixture(scope="session")
def method_jobs(kubectl: Kubectl, namespace: str) -> None:
    """The DPO and GRPO jobs, created before all other jobs."""
    kubectl.apply(*build_methods(namespace))


@pytest.fixture(scope="session")
def prometheus(kubectl: Kubectl, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the pods' metric ports from before the first job."""
    with run_prometheus(kubectl, tmp_path_factory.mktemp("prometheus")) as running:
        yield running
