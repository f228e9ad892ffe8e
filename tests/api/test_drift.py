"""Children that somebody edits, deletes or replaces: the operator repairs its own, and reports foreign objects."""

from typing import Any

import pytest
from api.account import make_namespace
from api.children import CHILDREN, EDITS, POD
from api.conftest import Operator, status_of
from api.drift import SECONDS, Child, Live, add, content, replace, uid_of
from api.player import Player
from cluster.control_plane import Cluster
from finetune_operator.kube.kinds import WATCHED
from waiting import wait_for

Kinds = pytest.mark.parametrize("kind", CHILDREN)


def create_child(cluster: Cluster, player: Player, namespace: str, child: Child) -> tuple[Live, dict[str, Any]]:
    """Create an owner; return its child, and the child's first manifest."""
    child.create_owner(cluster, player, namespace)
    live = child.wait(cluster, namespace)
    return live, live.get()


def wait_until_steady(cluster: Cluster, namespace: str, child: Child, seconds: float = SECONDS) -> None:
    """Wait until the owner has its expected Ready condition."""
    wait_for(
        lambda: child.is_steady(cluster, namespace),
        lambda: f"{child.owner}: {status_of(cluster, namespace, 'job', child.owner)}",
        seconds,
    )


def wait_for_conflict(cluster: Cluster, namespace: str, child: Child) -> None:
    """Wait until the owner's Ready has the reason Conflict."""
    wait_for(
        lambda: child.ready(cluster, namespace) == ("False", "Conflict"),
        lambda: f"{child.owner}: {status_of(cluster, namespace, 'job', child.owner)}",
        SECONDS,
    )


def test_every_kind_of_child_is_tested() -> None:
    tested = {child.kind for child in CHILDREN.values()} | {"Job", "PersistentVolumeClaim"}
    assert tested == {kind.name for kind in WATCHED} - {"FineTuneJob", "Pod"}


@pytest.mark.parametrize(("kind", "edit"), EDITS, ids=lambda value: value.replace(" ", "-").lower())
def test_an_edit_is_reverted(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, kind: str, edit: str
) -> None:
    child = CHILDREN[kind]
    live, before = create_child(cluster, player, namespace, child)
    live.patch(list(child.edits[edit]))
    live.wait_until(lambda now: content(now) == content(before), f"{edit} of {kind}")
    assert uid_of(live.get()) == uid_of(before)
    wait_until_steady(cluster, namespace, child)


@Kinds
def test_removed_labels_are_restored(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, kind: str
) -> None:
    live, before = create_child(cluster, player, namespace, CHILDREN[kind])
    live.remove_metadata("labels")
    live.wait_until(lambda now: content(now) == content(before), f"labels of {kind}")
    assert uid_of(live.get()) == uid_of(before)
    wait_until_steady(cluster, namespace, CHILDREN[kind])


@Kinds
def test_a_child_without_owner_is_a_conflict_until_it_is_deleted(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, kind: str
) -> None:
    child = CHILDREN[kind]
    live, before = create_child(cluster, player, namespace, child)
    live.remove_metadata("ownerReferences")
    wait_for_conflict(cluster, namespace, child)
    orphan = live.get()
    assert content(orphan) == content(before) | {"owners": []}
    live.delete()
    live.wait_until(lambda now: content(now) == content(before), f"a new {kind}")
    wait_until_steady(cluster, namespace, child)


@Kinds
def test_a_deleted_child_is_recreated(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, kind: str
) -> None:
    live, before = create_child(cluster, player, namespace, CHILDREN[kind])
    live.delete()
    live.wait_until(
        lambda now: uid_of(now) not in ("", uid_of(before)) and content(now) == content(before), f"a new {kind}"
    )
    wait_until_steady(cluster, namespace, CHILDREN[kind])


@pytest.mark.parametrize("labeled", [False, True], ids=["unlabeled", "labeled"])
def test_foreign_objects_are_reported_and_not_changed(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, labeled: bool
) -> None:
    """Tests all kinds at once, so that the slow wait for the next resync happens once."""
    lives: dict[str, tuple[Child, Live]] = {}
    for number, (kind, child) in enumerate(CHILDREN.items()):
        own = f"{namespace}-{number}"
        make_namespace(cluster, own)
        child.create_owner(cluster, player, own)
        lives[kind] = child, child.wait(cluster, own)
    before = {kind: live.get() for kind, (_, live) in lives.items()}
    foreign = {}
    for kind, (child, live) in lives.items():
        labels = before[kind]["metadata"]["labels"] if labeled else {"team": "other"}
        with operator.paused():
            live.delete()
            foreign[kind] = live.create(child.foreign, labels)
    for child, live in lives.values():
        wait_for_conflict(cluster, live.namespace, child)
    for kind, (_, live) in lives.items():
        now = live.get()
        assert (uid_of(now), content(now)) == (uid_of(foreign[kind]), content(foreign[kind])), kind
        live.delete()
    for kind, (child, live) in lives.items():
        live.wait_until(lambda now, kind=kind: content(now) == content(before[kind]), f"a new {kind}", 60)  # type: ignore[misc]
        wait_until_steady(cluster, live.namespace, child, 60)


def test_metadata_that_others_add_to_a_child_stays(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    """`kubectl rollout restart` writes an annotation into the template: without it the restart would be undone."""
    child = CHILDREN["Deployment"]
    live, before = create_child(cluster, player, namespace, child)
    cluster.run_kubectl("rollout", "restart", "deployment", "job", "-n", namespace)
    cluster.run_kubectl("annotate", "deployment", "job", "-n", namespace, "example.com/team=a")
    cluster.run_kubectl("label", "deployment", "job", "-n", namespace, "team=a")
    live.patch(replace(f"{POD}/containers/0/image", "other:1"))
    live.wait_until(lambda now: image_of(now) == image_of(before), "the image")
    metadata, template = live.get()["metadata"], live.get()["spec"]["template"]["metadata"]
    assert (metadata["annotations"]["example.com/team"], metadata["labels"]["team"]) == ("a", "a")
    assert "kubectl.kubernetes.io/restartedAt" in template["annotations"]


def image_of(deployment: dict[str, Any]) -> str:
    """Return the image of a Deployment's container."""
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def test_a_pin_on_a_jobs_own_server_stays(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    """The user owns pins, also on a ModelServer that belongs to a job."""
    child = CHILDREN["ModelServer"]
    live, before = create_child(cluster, player, namespace, child)
    live.patch(add("/spec/pins", {"bot": "job"}))
    live.patch(list(child.edits["adapters"]))
    live.wait_until(lambda now: now["spec"]["lora"] == before["spec"]["lora"], "the adapter settings")
    assert live.get()["spec"]["pins"] == {"bot": "job"}
