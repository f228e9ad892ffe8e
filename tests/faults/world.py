"""What the cluster holds, namespace by namespace, and what happened in it, by watches that no fault befalls."""

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
    """A Job of one attempt at a stage that was there once."""

    owner: str
    """Uid of the FineTuneJob."""
    stage: str
    attempt: str
    uid: str
    began: int
    """Resource version since which it is there."""
    ended: int | None = None
    """Resource version at which it was over or gone."""


@dataclass
class Scene:
    """One namespace."""

    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    """By kind and name."""
    jobs: dict[str, StageJob] = field(default_factory=dict)
    """Every Job of a stage that there ever was, by uid."""
    controllers: dict[str, str | None] = field(default_factory=dict)
    """Whose every object was from its beginning: its controller's uid by its own."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    waits_for: str = ""
    """What the user waits to see just now."""

    def take(self, kind: str, event: str, manifest: Manifest) -> None:
        """Take over what happened."""
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
        return (manifest for (known, _), manifest in self.objects.items() if known == kind)

    def _follow(self, event: str, job: Manifest) -> None:
        metadata, labels = job["metadata"], job["metadata"]["labels"]
        version = int(metadata["resourceVersion"])
        known = self.jobs.setdefault(
            metadata["uid"],
            StageJob(controller_of(job) or "", labels[STAGE_LABEL], labels[ATTEMPT_LABEL], metadata["uid"], version),
        )
        conditions = job.get("status", {}).get("conditions", [])
        is_over = any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)
        if known.ended is None and (is_over or event == "DELETED"):
            known.ended = version


class World:
    """All namespaces of the runs that go on."""

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
                scene.take(kind, event, manifest)

    async def enter(self, namespace: str) -> Scene:
        """Make a namespace and follow it."""
        scene = self._scenes[namespace] = Scene()
        await self._client.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        return scene

    def leave(self, namespace: str) -> None:
        """Follow a namespace no more."""
        del self._scenes[namespace]


class User:
    """Whoever applies manifests in a namespace, and looks at what comes of them."""

    def __init__(self, client: Client, namespace: str, scene: Scene, part: Part) -> None:
        self._client, self.namespace, self.scene, self.part = client, namespace, scene, part

    async def create(self, kind: str, name: str, spec: Manifest) -> None:
        """Make a FineTuneJob or a ModelServer."""
        manifest = {"apiVersion": "finetune.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        await self._client.request("POST", self._path(kind), manifest)

    async def change(self, kind: str, name: str, spec: Manifest) -> None:
        """Change fields of a spec."""
        await self._client.patch(f"{self._path(kind)}/{name}", {"spec": spec})

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object; what it owns is Kubernetes' to collect."""
        await self._client.request("DELETE", f"{self._path(kind)}/{name}")

    async def until(self, is_true: Callable[[Scene], bool], what: str) -> None:
        """Wait for something to be seen, for ever: whoever runs the lifecycle gives up some time."""
        self.scene.waits_for = what
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
    """Tell whether an object has a condition with a status and a reason."""
    manifest = scene.objects.get((kind, name), {})
    found = manifest.get("status", {}).get("conditions", [])
    return any((one["type"], one["status"], one["reason"]) == (condition, status, reason) for one in found)
