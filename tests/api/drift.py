"""Changes to children from outside: how to create a child of each kind, and how somebody may edit it."""

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
"""The operator repairs or reports a change within this time. The resync comes later, so the watches must see it."""
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
    """A kind of child, and the owner `job` that has it."""

    kind: str
    edits: Mapping[str, Patch]
    """Edits that the operator must revert, by description."""
    foreign: Mapping[str, Any]
    """Fields of an object of this kind that another owner created."""
    owner: str = "ModelServer"
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Part of the owner's spec that requires this child."""
    stage: str | None = None
    """The stage in which a FineTuneJob is held; None lets it complete."""

    def create_owner(self, cluster: Cluster, player: Player, namespace: str) -> None:
        """Create the owner."""
        if self.owner == "FineTuneJob":
            player.play(namespace, hold(self.stage))
            apply(cluster, finetunejob("job", namespace, **self.spec))
            return
        metadata = {"name": "job", "namespace": namespace}
        spec = {"model": {"uri": "pvc://models/base"}, **self.spec}
        apply(cluster, {"apiVersion": API_VERSIONS[self.owner], "kind": self.owner, "metadata": metadata, "spec": spec})

    def wait(self, cluster: Cluster, namespace: str) -> "Live":
        """Wait until the owner has its child and its expected Ready condition; return the child."""
        wait_for(
            lambda: self.is_steady(cluster, namespace) and bool(self._names(cluster, namespace)),
            lambda: f"{self.owner}: {status_of(cluster, namespace, 'job', self.owner)}",
        )
        (name,) = self._names(cluster, namespace)
        return Live(cluster, self.kind, namespace, name)

    def is_steady(self, cluster: Cluster, namespace: str) -> bool:
        """Return whether the owner has the Ready condition that this test expects."""
        expected = ("False", RUNNING[self.stage]) if self.stage else ("True", "Serving")
        return self.ready(cluster, namespace) == expected

    def ready(self, cluster: Cluster, namespace: str) -> tuple[str, str]:
        """Return status and reason of the owner's Ready."""
        return condition_of(status_of(cluster, namespace, "job", self.owner), "Ready")

    def _names(self, cluster: Cluster, namespace: str) -> list[str]:
        names = [child["metadata"]["name"] for child in get_all(cluster, self.kind, namespace)]
        return [name for name in names if name.startswith("job")]


RUNNING = {"Prepare": "Preparing", "Train": "Training", "Evaluate": "Evaluating"}
"""Reason of Ready while a job runs a stage."""


def hold(stage: str | None, released: list[bool] | None = None) -> Script:
    """Return a script that keeps a stage running while `released` is empty; all other stages succeed."""

    def play(pod: dict[str, Any]) -> tuple[int, str] | None:
        is_held = pod["metadata"]["labels"]["finetune.dev/stage"] == stage
        return None if is_held and not released else succeed(pod)

    return play


@dataclass(frozen=True)
class Live:
    """A child in the cluster, by its name."""

    cluster: Cluster
    kind: str
    namespace: str
    name: str

    def get(self) -> dict[str, Any]:
        """Return the object; empty where it does not exist."""
        text = self._run("get", self.kind, self.name, "--ignore-not-found", "-o", "json")
        return dict(json.loads(text)) if text else {}

    def patch(self, patch: Patch) -> None:
        """Apply a JSON patch that must change something."""
        done = self._run("patch", self.kind, self.name, "--type=json", "-p", json.dumps(patch))
        assert "no change" not in done, done

    def remove_metadata(self, part: str) -> None:
        """Remove its `labels` or its `ownerReferences`."""
        self.patch([{"op": "remove", "path": f"/metadata/{part}"}])

    def delete(self) -> None:
        """Delete the object."""
        self._run("delete", self.kind, self.name)

    def create(self, foreign: Mapping[str, Any], labels: dict[str, str]) -> dict[str, Any]:
        """Create a foreign object of the same name and return it; fails where the name is taken."""
        metadata = {"name": self.name, "namespace": self.namespace, "labels": labels}
        manifest = {"apiVersion": API_VERSIONS[self.kind], "kind": self.kind, "metadata": metadata, **foreign}
        return dict(json.loads(self._run("create", "-f", "-", "-o", "json", stdin=json.dumps(manifest))))

    def wait_until(self, is_done: Callable[[dict[str, Any]], bool], description: str, seconds: float = SECONDS) -> None:
        """Wait until the object passes a check."""
        wait_for(lambda: is_done(self.get()), lambda: f"{description}: {json.dumps(content(self.get()))}", seconds)

    def _run(self, verb: str, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.run_kubectl(verb, "-n", self.namespace, *arguments, stdin=stdin)


def content(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the creator of an object chose, without those that the cluster sets at each creation."""
    metadata, spec = manifest.get("metadata", {}), manifest.get("spec", {})
    return {
        "labels": metadata.get("labels"),
        "owners": [owner["uid"] for owner in metadata.get("ownerReferences", [])],
        "data": manifest.get("data"),
        "spec": {name: value for name, value in spec.items() if name not in ("clusterIP", "clusterIPs")},
    }


def uid_of(manifest: dict[str, Any]) -> str:
    """Return an object's uid; empty where the object does not exist."""
    return str(manifest.get("metadata", {}).get("uid", ""))
