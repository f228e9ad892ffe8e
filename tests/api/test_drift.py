"""Children that somebody edits, strips, deletes or replaces: mended, or told, and nothing of others is overwritten."""

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


def begin(cluster: Cluster, player: Player, namespace: str, child: Child) -> tuple[Live, dict[str, Any]]:
    """Make a child; return it, and what it was like."""
    child.begin(cluster, player, namespace)
    live = child.wait(cluster, namespace)
    return live, live.get()


def wait_until_steady(cluster: Cluster, namespace: str, child: Child, seconds: float = SECONDS) -> None:
    """Wait until the owner is where it was meant to be."""
    wait_for(
        lambda: child.is_steady(cluster, namespace),
        lambda: f"{child.owner}: {status_of(cluster, namespace, 'job', child.owner)}",
        seconds,
    )


def wait_until_told(cluster: Cluster, namespace: str, child: Child) -> None:
    """Wait until the owner tells of a conflict."""
    wait_for(
        lambda: child.ready(cluster, namespace) == ("False", "Conflict"),
        lambda: f"{child.owner}: {status_of(cluster, namespace, 'job', child.owner)}",
        SECONDS,
    )


def test_every_kind_of_child_is_tried() -> None:
    tried = {child.kind for child in CHILDREN.values()} | {"Job", "PersistentVolumeClaim"}
    assert tried == {kind.name for kind in WATCHED} - {"FineTuneJob", "Pod"}


@pytest.mark.parametrize(("kind", "edit"), EDITS, ids=lambda value: value.replace(" ", "-").lower())
def test_an_edit_is_mended(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, kind: str, edit: str
) -> None:
    child = CHILDREN[kind]
    live, before = begin(cluster, player, namespace, child)
    live.patch(list(child.edits[edit]))
    live.wait_until(lambda now: content(now) == content(before), f"{edit} of {kind}")
    assert uid_of(live.get()) == uid_of(before)
    wait_until_steady(cluster, namespace, child)


@Kinds
def test_labels_that_were_taken_come_back(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, kind: str
) -> None:
    live, before = begin(cluster, player, namespace, CHILDREN[kind])
    live.lose("labels")
    live.wait_until(lambda now: content(now) == content(before), f"labels of {kind}")
    assert uid_of(live.get()) == uid_of(before)
    wait_until_steady(cluster, namespace, CHILDREN[kind])


@Kinds
def test_a_child_without_its_owner_is_told_of_and_made_anew_when_it_is_gone(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, kind: str
) -> None:
    child = CHILDREN[kind]
    live, before = begin(cluster, player, namespace, child)
    live.lose("ownerReferences")
    wait_until_told(cluster, namespace, child)
    orphan = live.get()
    assert content(orphan) == content(before) | {"owners": []}
    live.delete()
    live.wait_until(lambda now: content(now) == content(before), f"a new {kind}")
    wait_until_steady(cluster, namespace, child)


@Kinds
def test_a_deleted_child_is_made_anew(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, kind: str
) -> None:
    live, before = begin(cluster, player, namespace, CHILDREN[kind])
    live.delete()
    live.wait_until(
        lambda now: uid_of(now) not in ("", uid_of(before)) and content(now) == content(before), f"a new {kind}"
    )
    wait_until_steady(cluster, namespace, CHILDREN[kind])


@pytest.mark.parametrize("labelled", [False, True], ids=["unlabelled", "labelled"])
def test_what_is_somebody_elses_is_left_alone_and_told_of(
    cluster: Cluster, operator: Operator, player: Player, namespace: str, labelled: bool
) -> None:
    """All kinds at once: the wait for the operator to look again is the same for all."""
    lives: dict[str, tuple[Child, Live]] = {}
    for number, (kind, child) in enumerate(CHILDREN.items()):
        own = f"{namespace}-{number}"
        make_namespace(cluster, own)
        child.begin(cluster, player, own)
        lives[kind] = child, child.wait(cluster, own)
    before = {kind: live.get() for kind, (_, live) in lives.items()}
    foreign = {}
    for kind, (child, live) in lives.items():
        labels = before[kind]["metadata"]["labels"] if labelled else {"team": "other"}
        with operator.frozen():
            live.delete()
            foreign[kind] = live.create(child.foreign, labels)
    for child, live in lives.values():
        wait_until_told(cluster, live.namespace, child)
    for kind, (_, live) in lives.items():
        now = live.get()
        assert (uid_of(now), content(now)) == (uid_of(foreign[kind]), content(foreign[kind])), kind
        live.delete()
    for kind, (child, live) in lives.items():
        live.wait_until(lambda now, kind=kind: content(now) == content(before[kind]), f"a new {kind}", 60)  # type: ignore[misc]
        wait_until_steady(cluster, live.namespace, child, 60)


def test_what_others_add_to_a_child_stays(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    """`kubectl rollout restart` writes an annotation into the template: without it the restart would be undone."""
    child = CHILDREN["Deployment"]
    live, before = begin(cluster, player, namespace, child)
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
    """Pins are the user's, also on a ModelServer that a job made."""
    child = CHILDREN["ModelServer"]
    live, before = begin(cluster, player, namespace, child)
    live.patch(add("/spec/pins", {"bot": "job"}))
    live.patch(list(child.edits["room"]))
    live.wait_until(lambda now: now["spec"]["lora"] == before["spec"]["lora"], "the room for adapters")
    assert live.get()["spec"]["pins"] == {"bot": "job"}
