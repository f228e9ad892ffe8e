"""What can happen to children from outside: how each kind comes to be, and what somebody may do to it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.conftest import apply, condition_of, finetunejob, get_all, status_of
from api.player import Player, Script, succeed
from cluster.control_plane import Cluster
from finetune_operator.kube.kinds import WATCHED
from waiting import wait_for

SECONDS = 30
"""Within these a change of a child is mended or told. The resync comes much later, so the watches must see it."""
Patch = list[dict[str, Any]]
"""A JSON patch."""
API_VERSIONS = {kind.name: kind.api_version for kind in WATCHED}


def replace(path: str, value: object) -> Patch:
    """Return the patch that changes a field."""
    return [{"op": "replace", "path": path, "value": value}]


def add(path: str, value: object) -> Patch:
    """Return the patch that adds an entry."""
    return [{"op": "add", "path": path, "value": value}]


@dataclass(frozen=True)
class Child:
    """A kind of child, and the owner `job` that makes it."""

    kind: str
    edits: Mapping[str, Patch]
    """What somebody changes in it, by what that is."""
    foreign: Mapping[str, Any]
    """What somebody else's object of this kind says."""
    owner: str = "ModelServer"
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Of the owner's spec, what leads to this child."""
    stage: str | None = None
    """The stage in which a FineTuneJob is held; None lets it go to its end."""

    def begin(self, cluster: Cluster, player: Player, namespace: str) -> None:
        """Make the owner."""
        if self.owner == "FineTuneJob":
            player.play(namespace, hold(self.stage))
            apply(cluster, finetunejob("job", namespace, **self.spec))
            return
        metadata = {"name": "job", "namespace": namespace}
        spec = {"model": {"uri": "pvc://models/base"}, **self.spec}
        apply(cluster, {"apiVersion": API_VERSIONS[self.owner], "kind": self.owner, "metadata": metadata, "spec": spec})

    def wait(self, cluster: Cluster, namespace: str) -> "Live":
        """Wait until the owner has its child and is where it is meant to be; return the child."""
        wait_for(
            lambda: self.is_steady(cluster, namespace) and bool(self._names(cluster, namespace)),
            lambda: f"{self.owner}: {status_of(cluster, namespace, 'job', self.owner)}",
        )
        (name,) = self._names(cluster, namespace)
        return Live(cluster, self.kind, namespace, name)

    def is_steady(self, cluster: Cluster, namespace: str) -> bool:
        """Tell whether the owner is where it is meant to be."""
        meant = ("False", RUNNING[self.stage]) if self.stage else ("True", "Serving")
        return self.ready(cluster, namespace) == meant

    def ready(self, cluster: Cluster, namespace: str) -> tuple[str, str]:
        """Return status and reason of the owner's Ready."""
        return condition_of(status_of(cluster, namespace, "job", self.owner), "Ready")

    def _names(self, cluster: Cluster, namespace: str) -> list[str]:
        names = [one["metadata"]["name"] for one in get_all(cluster, self.kind, namespace)]
        return [name for name in names if name.startswith("job")]


RUNNING = {"Prepare": "Preparing", "Train": "Training", "Evaluate": "Evaluating"}
"""Reason of a job that is in a stage."""


def hold(stage: str | None, released: list[bool] | None = None) -> Script:
    """Return a script that lets a stage run on until `released` holds something, and every other succeed."""

    def play(pod: dict[str, Any]) -> tuple[int, str] | None:
        is_held = pod["metadata"]["labels"]["finetune.dev/stage"] == stage
        return None if is_held and not released else succeed(pod)

    return play


@dataclass(frozen=True)
class Live:
    """One child in the cluster."""

    cluster: Cluster
    kind: str
    namespace: str
    name: str

    def get(self) -> dict[str, Any]:
        """Return it; empty where it is gone."""
        text = self._run("get", self.kind, self.name, "--ignore-not-found", "-o", "json")
        return dict(json.loads(text)) if text else {}

    def patch(self, patch: Patch) -> None:
        """Change it as somebody would."""
        done = self._run("patch", self.kind, self.name, "--type=json", "-p", json.dumps(patch))
        assert "no change" not in done, done

    def lose(self, part: str) -> None:
        """Take its `labels` or its `ownerReferences` away."""
        self.patch([{"op": "remove", "path": f"/metadata/{part}"}])

    def delete(self) -> None:
        """Delete it."""
        self._run("delete", self.kind, self.name)

    def create(self, foreign: Mapping[str, Any], labels: dict[str, str]) -> dict[str, Any]:
        """Make somebody else's object of its name, and return it; fails where there is one."""
        metadata = {"name": self.name, "namespace": self.namespace, "labels": labels}
        manifest = {"apiVersion": API_VERSIONS[self.kind], "kind": self.kind, "metadata": metadata, **foreign}
        return dict(json.loads(self._run("create", "-f", "-", "-o", "json", stdin=json.dumps(manifest))))

    def wait_until(self, is_right: Callable[[dict[str, Any]], bool], what: str, seconds: float = SECONDS) -> None:
        """Wait until it is as it should be."""
        wait_for(lambda: is_right(self.get()), lambda: f"{what}: {json.dumps(content(self.get()))}", seconds)

    def _run(self, verb: str, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.run_kubectl(verb, "-n", self.namespace, *arguments, stdin=stdin)


def content(one: dict[str, Any]) -> dict[str, Any]:
    """Return what somebody decided about an object, without what the cluster fills in whenever it is made anew."""
    metadata, spec = one.get("metadata", {}), one.get("spec", {})
    return {
        "labels": metadata.get("labels"),
        "owners": [owner["uid"] for owner in metadata.get("ownerReferences", [])],
        "data": one.get("data"),
        "spec": {name: value for name, value in spec.items() if name not in ("clusterIP", "clusterIPs")},
    }


def uid_of(one: dict[str, Any]) -> str:
    """Return an object's uid; empty where it is gone."""
    return str(one.get("metadata", {}).get("uid", ""))
