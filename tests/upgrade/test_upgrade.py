"""From the release before this one to the working tree and back, while trainings and servers are live."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from api.conftest import get_all
from api.player import Player
from cluster.control_plane import Cluster
from upgrade.conftest import CURRENT_VALUES
from upgrade.release import CURRENT, NAME, Operator, Release, run_helm
from upgrade.tenant import Tenant
from waiting import wait_for

Start = Callable[[Release], Operator]
"""Starts the operator of a release."""
NEW_FIELDS: dict[str, Any] = {}
"""What the spec of a FineTuneJob may say since the release before this one; a job with all of it goes the whole way."""


def upgrade(cluster: Cluster, **values: Any) -> None:
    """Go over to the working tree's chart, by Helm."""
    run_helm(cluster, "upgrade", NAME, str(CURRENT.chart), values=CURRENT_VALUES | values)


def go_back(cluster: Cluster) -> None:
    """Go back to the release that was installed first, by Helm."""
    run_helm(cluster, "rollback", NAME, "1")


@pytest.fixture
def tenant(cluster: Cluster, player: Player, namespace: str) -> Tenant:
    """A tenant where the release before this one is installed."""
    return Tenant(cluster, player, namespace)


def test_every_new_field_is_tried(previous: Release) -> None:
    assert set(NEW_FIELDS) == CURRENT.fields - previous.fields


@pytest.mark.parametrize("direction", ["upgrade", "rollback"])
def test_what_runs_goes_on_under_the_other_release(
    cluster: Cluster, previous: Release, operator: Start, tenant: Tenant, direction: str
) -> None:
    before, after = (previous, CURRENT) if direction == "upgrade" else (CURRENT, previous)
    if direction == "rollback":
        upgrade(cluster)
    old = operator(before)
    tenant.begin()
    old.wait_until_quiet(tenant.objects())
    running, ended, served = tenant.running(), tenant.ended(), tenant.served()
    old.stop()
    if direction == "upgrade":
        upgrade(cluster)
    else:
        go_back(cluster)
    assert kinds_of(cluster) == kinds_in(cluster, after)
    # Neither the end of an operator nor Helm changes what the next one begins with.
    assert (tenant.ended(), tenant.served()) == (ended, served)
    new = operator(after)
    new.wait_until_quiet(tenant.objects())
    assert tenant.changed(running) == {}
    assert not tenant.missing()
    assert tenant.ended() == ended
    tenant.release()
    tenant.apply("late", **(NEW_FIELDS if direction == "upgrade" else {}))
    tenant.wait_for("late", "Ready", "True", "Completed")
    assert tenant.changed(running) == {}
    assert not tenant.begun_twice()


def test_of_two_releases_one_works_at_a_time_and_neither_undoes_what_the_other_did(
    cluster: Cluster, previous: Release, operator: Start, tenant: Tenant
) -> None:
    """While a Deployment rolls, an operator of each release runs: one has the Lease, the other stands by."""
    first = operator(previous)
    tenant.begin()
    running = tenant.running()
    upgrade(cluster)
    second = operator(CURRENT)
    tenant.release()
    assert second.metric("finetune_operator_writes_total") == 0
    assert tenant.changed(running) == {}
    assert not tenant.begun_twice()
    first.wait_until_quiet(tenant.objects())
    before = versions(cluster, tenant.namespace)
    first.stop()
    second.wait_until_quiet(tenant.objects())
    go_back(cluster)
    third = operator(previous)
    second.stop()
    third.wait_until_quiet(tenant.objects())
    assert versions(cluster, tenant.namespace) == before
    # Its status messages may be worded differently.
    assert third.child_writes() == 0


def test_a_new_serving_image_replaces_servers_and_no_training(
    cluster: Cluster, previous: Release, operator: Start, tenant: Tenant
) -> None:
    old = operator(previous)
    tenant.begin()
    running = tenant.running()
    old.stop()
    upgrade(cluster, serving={"image": {"tag": "2"}})
    operator(CURRENT)
    wait_for(
        lambda: images(cluster, tenant.namespace) == {"finetune.dev/serving:2"},
        lambda: str(images(cluster, tenant.namespace)),
    )
    (server,) = get_all(cluster, "deployments", tenant.namespace)
    assert server["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    servers = {name for name in running if name.startswith("pods/job-") and is_server(name)}
    assert len(servers) == 1
    assert set(tenant.changed(running)) == {"deployments/job", *servers}
    tenant.release()


def is_server(name: str) -> bool:
    """Tell whether a pod is a server's, by its name: those of stages hold the stage."""
    return not any(f"-{stage}-" in name for stage in ("prepare", "train", "evaluate"))


def images(cluster: Cluster, namespace: str) -> set[str]:
    """Return the images of the servers' pods."""
    pods = get_all(cluster, "pods", namespace)
    return {pod["spec"]["containers"][0]["image"] for pod in pods if "finetune.dev/server" in pod["metadata"]["labels"]}


def kinds_of(cluster: Cluster) -> dict[str, Any]:
    """Return the schemas of our kinds as the cluster has them."""
    found = json.loads(cluster.run_kubectl("get", "crd", "-o", "json"))["items"]
    return {one["metadata"]["name"]: one["spec"]["versions"] for one in found}


def kinds_in(cluster: Cluster, release: Release) -> dict[str, Any]:
    """Return the schemas of our kinds as the cluster would keep a release's."""
    files = sorted(release.crds.glob("*.yaml"))
    arguments = "replace", "--dry-run=server", "-o", "json", "-f"
    found = [json.loads(cluster.run_kubectl(*arguments, str(file))) for file in files]
    return {one["metadata"]["name"]: one["spec"]["versions"] for one in found}


def versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Return the resource version of every child, by kind and name."""
    return {
        f"{kind}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
        for kind in ("jobs", "deployments", "services", "configmaps", "poddisruptionbudgets", "networkpolicies")
        for one in get_all(cluster, kind, namespace)
    }
