"""Upgrades from the previous release to the working tree and rollbacks, while trainings and servers are live."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from api.conftest import get_all
from api.player import Player
from cluster.control_plane import Cluster
from upgrade.conftest import VALUES
from upgrade.release import CURRENT, NAME, Operator, Release, run_helm
from upgrade.tenant import Tenant
from waiting import wait_for

Start = Callable[[Release], Operator]
"""Starts the operator of a release."""
NEW_FIELDS: dict[str, Any] = {}
"""Spec fields that the previous release does not have; a job with all of them must complete."""


def upgrade(cluster: Cluster, **values: Any) -> None:
    """Upgrade to the working tree's chart with Helm."""
    run_helm(cluster, "upgrade", NAME, str(CURRENT.chart), values=VALUES | values)


def roll_back(cluster: Cluster) -> None:
    """Roll back to the release that was installed first, with Helm."""
    run_helm(cluster, "rollback", NAME, "1")


@pytest.fixture
def tenant(cluster: Cluster, player: Player, namespace: str) -> Tenant:
    """A tenant in a cluster with the previous release."""
    return Tenant(cluster, player, namespace)


def test_every_new_field_is_listed(previous: Release) -> None:
    assert set(NEW_FIELDS) == CURRENT.fields - previous.fields


@pytest.mark.parametrize("direction", ["upgrade", "rollback"])
def test_running_objects_survive_the_change_of_release(
    cluster: Cluster, previous: Release, operator: Start, tenant: Tenant, direction: str
) -> None:
    before, after = (previous, CURRENT) if direction == "upgrade" else (CURRENT, previous)
    if direction == "rollback":
        upgrade(cluster)
    old = operator(before)
    tenant.create_jobs()
    old.wait_until_quiet(tenant.count_objects())
    running, ended, served = tenant.snapshot(), tenant.ended(), tenant.served()
    old.stop()
    if direction == "upgrade":
        upgrade(cluster)
    else:
        roll_back(cluster)
    assert list_installed_schemas(cluster) == list_release_schemas(cluster, after)
    # Neither the stop of an operator nor Helm changes the state for the next operator.
    assert (tenant.ended(), tenant.served()) == (ended, served)
    new = operator(after)
    new.wait_until_quiet(tenant.count_objects())
    assert tenant.changed(running) == {}
    assert not tenant.missing()
    assert tenant.ended() == ended
    tenant.release()
    tenant.apply("late", **(NEW_FIELDS if direction == "upgrade" else {}))
    tenant.wait_for("late", "Ready", "True", "Completed")
    assert tenant.changed(running) == {}
    assert not tenant.repeated_stages()


def test_only_one_of_two_releases_writes_and_none_reverts_the_other(
    cluster: Cluster, previous: Release, operator: Start, tenant: Tenant
) -> None:
    """During a rolling update an operator of each release runs: one holds the Lease, the other is a standby."""
    first = operator(previous)
    tenant.create_jobs()
    running = tenant.snapshot()
    upgrade(cluster)
    second = operator(CURRENT)
    tenant.release()
    assert second.metric("finetune_operator_writes_total") == 0
    assert tenant.changed(running) == {}
    assert not tenant.repeated_stages()
    first.wait_until_quiet(tenant.count_objects())
    before = list_versions(cluster, tenant.namespace)
    first.stop()
    second.wait_until_quiet(tenant.count_objects())
    roll_back(cluster)
    third = operator(previous)
    second.stop()
    third.wait_until_quiet(tenant.count_objects())
    assert list_versions(cluster, tenant.namespace) == before
    assert third.metric("finetune_operator_writes_total") == 0


def test_a_new_serving_image_replaces_servers_and_no_training(
    cluster: Cluster, previous: Release, operator: Start, tenant: Tenant
) -> None:
    old = operator(previous)
    tenant.create_jobs()
    running = tenant.snapshot()
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
    """Return whether a pod belongs to a server: the names of all other pods contain their stage."""
    return not any(f"-{stage}-" in name for stage in ("prepare", "train", "evaluate"))


def images(cluster: Cluster, namespace: str) -> set[str]:
    """Return the images of the servers' pods."""
    pods = get_all(cluster, "pods", namespace)
    return {pod["spec"]["containers"][0]["image"] for pod in pods if "finetune.dev/server" in pod["metadata"]["labels"]}


def list_installed_schemas(cluster: Cluster) -> dict[str, Any]:
    """Return the schemas of our CRDs in the cluster."""
    crds = json.loads(cluster.run_kubectl("get", "crd", "-o", "json"))["items"]
    return {crd["metadata"]["name"]: crd["spec"]["versions"] for crd in crds}


def list_release_schemas(cluster: Cluster, release: Release) -> dict[str, Any]:
    """Return the schemas of a release's CRDs as the cluster would store them."""
    files = sorted(release.crds.glob("*.yaml"))
    arguments = "replace", "--dry-run=server", "-o", "json", "-f"
    crds = [json.loads(cluster.run_kubectl(*arguments, str(file))) for file in files]
    return {crd["metadata"]["name"]: crd["spec"]["versions"] for crd in crds}


def list_versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Return the resource version of every child, by kind and name."""
    return {
        f"{kind}/{child['metadata']['name']}": child["metadata"]["resourceVersion"]
        for kind in ("jobs", "deployments", "services", "configmaps", "poddisruptionbudgets", "networkpolicies")
        for child in get_all(cluster, kind, namespace)
    }
