"""A client of the API server that creates thousands of FineTuneJobs and records when each gets its first Job."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from cluster.control_plane import Cluster

_CONNECTIONS = 16
_KUBELETS = 4
_LABEL = "finetune.dev/job"
_ADDED = b'{"type":"ADDED"'
_STATE = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
_CONTAINER = {"name": "prepare", "image": "x", "imageID": "x", "ready": True, "restartCount": 0, "state": _STATE}
_RUNNING = json.dumps({"status": {"phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [_CONTAINER]}})
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_LIST_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@dataclass
class Fleet:
    """FineTuneJobs by name, with the times of their creation and of their first Job."""

    session: aiohttp.ClientSession
    server: str
    created_at: dict[str, float] = field(default_factory=dict)
    started_at: dict[str, float] = field(default_factory=dict)
    running: int = 0
    """Number of pods that were marked as running."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(self, jobs: list[dict[str, Any]]) -> None:
        """Create jobs as fast as the API server accepts them."""
        pending = list(jobs)

        async def work() -> None:
            while pending:
                job = pending.pop()
                await self.post("/apis/finetune.dev/v1alpha1", "finetunejobs", job)
                self.created_at[job["metadata"]["name"]] = time.monotonic()

        await asyncio.gather(*(work() for _ in range(_CONNECTIONS)))

    async def post(self, root: str, plural: str, manifest: dict[str, Any]) -> None:
        """Create one object."""
        namespace = manifest["metadata"].get("namespace")
        url = f"{self.server}{root}{f'/namespaces/{namespace}' if namespace else ''}/{plural}"
        async with self.session.post(url, json=manifest) as response:
            text = await response.text()
            assert response.status == 201, text

    async def delete(self, path: str) -> None:
        """Delete an object."""
        async with self.session.delete(f"{self.server}{path}") as response:
            text = await response.text()
            assert response.status in (200, 202), text

    async def wait_until_started(self, names: list[str], seconds: float) -> None:
        """Wait until each of the jobs has its first Job."""
        async with asyncio.timeout(seconds):
            while not all(name in self.started_at for name in names):
                self._changed.clear()
                await self._changed.wait()

    async def wait_until_running(self, count: int, seconds: float) -> None:
        """Wait until `count` pods run."""
        async with asyncio.timeout(seconds):
            while self.running < count:
                self._changed.clear()
                await self._changed.wait()

    async def run_pods(self) -> None:
        """Mark each pod of a stage as running, as a kubelet would, until cancelled."""
        pods: asyncio.Queue[dict[str, str]] = asyncio.Queue()

        async def work() -> None:
            while True:
                metadata = await pods.get()
                await self._mark_running(metadata["namespace"], metadata["name"])

        async with asyncio.TaskGroup() as group:
            for _ in range(_KUBELETS):
                group.create_task(work())
            async for metadata in self._list_and_watch("/api/v1/pods"):
                pods.put_nowait(metadata)

    async def _list_and_watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the metadata of each object with the job label once."""
        seen: set[str] = set()
        while True:
            # The API server ends the watch of a slow reader; the next list has the objects that were missed.
            async with self.session.get(
                f"{self.server}{path}", params={"labelSelector": _LABEL}, headers={"Accept": _LIST_METADATA_ONLY}
            ) as response:
                listed = await response.json()
            for item in listed["items"] or ():
                if item["metadata"]["uid"] not in seen:
                    seen.add(item["metadata"]["uid"])
                    yield item["metadata"]
            async for metadata in self._watch(path, listed["metadata"]["resourceVersion"]):
                seen.add(metadata["uid"])
                yield metadata

    async def _watch(self, path: str, version: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the metadata of each object created after a resource version, until the watch ends."""
        query = {"watch": "true", "labelSelector": _LABEL, "resourceVersion": version, "timeoutSeconds": "86400"}
        timeout, headers = aiohttp.ClientTimeout(total=None), {"Accept": _METADATA_ONLY}
        async with self.session.get(f"{self.server}{path}", params=query, headers=headers, timeout=timeout) as response:
            async for line in response.content:
                if line.startswith(_ADDED):
                    yield json.loads(line)["object"]["metadata"]

    async def _mark_running(self, namespace: str, name: str) -> None:
        url = f"{self.server}/api/v1/namespaces/{namespace}/pods/{name}/status"
        headers = {"Content-Type": "application/merge-patch+json", "Accept": _METADATA_ONLY}
        async with self.session.patch(url, data=_RUNNING, headers=headers) as response:
            text = await response.text()
            assert response.status in (200, 404), text
        self.running += 1
        self._changed.set()

    def delays(self, names: list[str]) -> list[float]:
        """Return the seconds from the creation of each job to its first Job, in ascending order."""
        return sorted(self.started_at[name] - self.created_at[name] for name in names)

    async def watch_jobs(self) -> None:
        """Record when the first Job of each FineTuneJob appears, until cancelled."""
        async for metadata in self._list_and_watch("/apis/batch/v1/jobs"):
            self.started_at.setdefault(metadata["labels"][_LABEL], time.monotonic())
            self._changed.set()


@asynccontextmanager
async def watch_fleet(cluster: Cluster) -> AsyncIterator[Fleet]:
    """Connect to the API server as the administrator; watch the Jobs and mark pods as running in the background."""
    context = ssl.create_default_context(cafile=str(cluster.directory / "pki" / "apiserver.crt"))
    token = (cluster.directory / "pki" / "admin.token").read_text()
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(
        connector=connector, headers={"Authorization": f"Bearer {token}"}, read_bufsize=2**21
    ) as session:
        fleet = Fleet(session, cluster.server)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fleet.watch_jobs()), group.create_task(fleet.run_pods())]
            yield fleet
            for task in tasks:
                task.cancel()
