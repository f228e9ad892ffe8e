"""The objects of each namespace and their history, from watches without faults."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from api.player import Part
from cluster.client import Client
from finetune_api.meta import ATTEMPT_LABEL, STAGE_LABEL
from finetune_operator.controller.events import REPORTER
from finetune_operator.kube.kinds import WATCHED

Manifest = dict[str, Any]
_PATHS = {kind.name: kind.path() for kind in WATCHED} | {"Event": "/apis/events.k8s.io/v1/events"}


@dataclass
class StageJob:
    """The Job of an attempt of a stage, which may be deleted."""

    owner: str
    """Uid of the FineTuneJob."""
    stage: str
    attempt: str
    uid: str
    started: int
    """Resource version of its first event."""
    ended: int | None = None
    """Resource version at which it finished or was deleted."""


@dataclass
class Scene:
    """The state of a namespace."""

    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    """By kind and name."""
    jobs: dict[str, StageJob] = field(default_factory=dict)
    """All Jobs of stages so far, by uid."""
    controllers: dict[str, str | None] = field(default_factory=dict)
    """The uid of each object's first controller, by the object's uid."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    waits_for: str = ""
    """What the user currently waits for."""

    def apply(self, kind: str, event: str, manifest: Manifest) -> None:
        """Apply an event."""
        metadata = manifest["metadata"]
        if kind == "Event" and manifest.get("reportingController") != REPORTER:
            return
        if event == "DELETED":
            self.objects.pop((kind, metadata["name"]), None)
        else:
            self.objects[kind, metadata["name"]] = manifest
        self.controllers.setdefault(metadata["uid"], controller_of(manifest))
        if kind == "Job":
            self._follow(event, manifest)
        self.changed.set()

    def find(self, kind: str) -> Iterator[Manifest]:
        """Return the objects of a kind."""
        return (manifest for (other, _), manifest in self.objects.items() if other == kind)

    def _follow(self, event: str, job: Manifest) -> None:
        metadata, labels = job["metadata"], job["metadata"]["labels"]
        version = int(metadata["resourceVersion"])
        record = self.jobs.setdefault(
            metadata["uid"],
            StageJob(controller_of(job) or "", labels[STAGE_LABEL], labels[ATTEMPT_LABEL], metadata["uid"], version),
        )
        conditions = job.get("status", {}).get("conditions", [])
        is_over = any(
            condition["type"] in ("Complete", "Failed") and condition["status"] == "True" for condition in conditions
        )
        if record.ended is None and (is_over or event == "DELETED"):
            record.ended = version


class World:
    """The namespaces of all current runs."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._scenes: dict[str, Scene] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as watches:
            for kind, path in _PATHS.items():
                watches.create_task(self._watch(kind, path))

    async def _watch(self, kind: str, path: str) -> None:
        async for event, manifest in self._client.watch(path):
            scene = self._scenes.get(manifest["metadata"]["namespace"])
            if scene is not None:
                scene.apply(kind, event, manifest)

    async def enter(self, namespace: str) -> Scene:
        """Create a namespace and track it."""
        scene = self._scenes[namespace] = Scene()
        await self._client.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        return scene

    def leave(self, namespace: str) -> None:
        """Stop tracking a namespace."""
        del self._scenes[namespace]


class User:
    """A user who applies manifests in a namespace and waits for results."""

    def __init__(self, client: Client, namespace: str, scene: Scene, part: Part) -> None:
        self._client, self.namespace, self.scene, self.part = client, namespace, scene, part

    async def create(self, kind: str, name: str, spec: Manifest) -> None:
        """Create a FineTuneJob or a ModelServer."""
        manifest = {"apiVersion": "finetune.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        await self._client.request("POST", self._path(kind), manifest)

    async def change(self, kind: str, name: str, spec: Manifest) -> None:
        """Change fields of a spec."""
        await self._client.patch(f"{self._path(kind)}/{name}", {"spec": spec})

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object; Kubernetes deletes its children."""
        await self._client.request("DELETE", f"{self._path(kind)}/{name}")

    async def until(self, is_true: Callable[[Scene], bool], description: str) -> None:
        """Wait without a timeout until the state meets a condition; the caller of the lifecycle has the timeout."""
        self.scene.waits_for = description
        while not is_true(self.scene):
            self.scene.changed.clear()
            await self.scene.changed.wait()
        self.scene.waits_for = ""

    async def until_condition(self, name: str, condition: str, reason: str, *, status: str = "True") -> None:
        """Wait for a condition of a FineTuneJob."""
        await self.until(
            lambda scene: has_condition(scene, "FineTuneJob", name, condition, status, reason),
            f"{condition}={status} {reason} of {name}",
        )

    def _path(self, kind: str) -> str:
        plural = f"{kind.lower()}s"
        return f"/apis/finetune.dev/v1alpha1/namespaces/{self.namespace}/{plural}"


def controller_of(manifest: Manifest) -> str | None:
    """Return the uid of the object that controls this one."""
    owners = manifest["metadata"].get("ownerReferences", [])
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), None)


def has_condition(scene: Scene, kind: str, name: str, condition: str, status: str, reason: str) -> bool:
    """Return whether an object has a condition with a status and a reason."""
    manifest = scene.objects.get((kind, name), {})
    conditions = manifest.get("status", {}).get("conditions", [])
    return any((entry["type"], entry["status"], entry["reason"]) == (condition, status, reason) for entry in conditions)
