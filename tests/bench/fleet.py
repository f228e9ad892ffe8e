"""A client of the API server that makes thousands of FineTuneJobs at once and sees when each has its first Job."""

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
    """FineTuneJobs in the making: when each was created, and when its first Job was there."""

    session: aiohttp.ClientSession
    server: str
    created: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    running: int = 0
    """Pods that were made to run."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(self, jobs: list[dict[str, Any]]) -> None:
        """Create jobs as fast as the API server takes them."""
        waiting = list(jobs)

        async def work() -> None:
            while waiting:
                job = waiting.pop()
                await self.post("/apis/finetune.dev/v1alpha1", "finetunejobs", job)
                self.created[job["metadata"]["name"]] = time.monotonic()

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

    async def wait_until_begun(self, names: list[str], seconds: float) -> None:
        """Wait until each of the jobs has its first Job."""
        async with asyncio.timeout(seconds):
            while not all(name in self.begun for name in names):
                self._news.clear()
                await self._news.wait()

    async def wait_until_running(self, count: int, seconds: float) -> None:
        """Wait until so many pods run."""
        async with asyncio.timeout(seconds):
            while self.running < count:
                self._news.clear()
                await self._news.wait()

    async def let_pods_run(self) -> None:
        """Say of each pod of a stage that it runs, as a kubelet would, until cancelled."""
        new: asyncio.Queue[dict[str, str]] = asyncio.Queue()

        async def work() -> None:
            while True:
                metadata = await new.get()
                await self._let_run(metadata["namespace"], metadata["name"])

        async with asyncio.TaskGroup() as group:
            for _ in range(_KUBELETS):
                group.create_task(work())
            async for metadata in self._follow("/api/v1/pods"):
                new.put_nowait(metadata)

    async def _follow(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the metadata of each object of the stages once."""
        seen: set[str] = set()
        while True:
            # Whoever reads a watch slowly is cut off by the API server: what came since is in the next list.
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
        """Yield the metadata of each object that is made after a version, until the watch ends."""
        query = {"watch": "true", "labelSelector": _LABEL, "resourceVersion": version, "timeoutSeconds": "86400"}
        timeout, headers = aiohttp.ClientTimeout(total=None), {"Accept": _METADATA_ONLY}
        async with self.session.get(f"{self.server}{path}", params=query, headers=headers, timeout=timeout) as response:
            async for line in response.content:
                if line.startswith(_ADDED):
                    yield json.loads(line)["object"]["metadata"]

    async def _let_run(self, namespace: str, name: str) -> None:
        url = f"{self.server}/api/v1/namespaces/{namespace}/pods/{name}/status"
        headers = {"Content-Type": "application/merge-patch+json", "Accept": _METADATA_ONLY}
        async with self.session.patch(url, data=_RUNNING, headers=headers) as response:
            text = await response.text()
            assert response.status in (200, 404), text
        self.running += 1
        self._news.set()

    def delays(self, names: list[str]) -> list[float]:
        """Return how many seconds after its creation each job had its first Job, in ascending order."""
        return sorted(self.begun[name] - self.created[name] for name in names)

    async def watch_jobs(self) -> None:
        """Note when the first Job of each FineTuneJob appears, until cancelled."""
        async for metadata in self._follow("/apis/batch/v1/jobs"):
            self.begun.setdefault(metadata["labels"][_LABEL], time.monotonic())
            self._news.set()


@asynccontextmanager
async def watch_fleet(cluster: Cluster) -> AsyncIterator[Fleet]:
    """Connect to the API server as its administrator; watch the Jobs and play the pods meanwhile."""
    context = ssl.create_default_context(cafile=str(cluster.directory / "pki" / "apiserver.crt"))
    token = (cluster.directory / "pki" / "admin.token").read_text()
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(
        connector=connector, headers={"Authorization": f"Bearer {token}"}, read_bufsize=2**21
    ) as session:
        fleet = Fleet(session, cluster.server)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fleet.watch_jobs()), group.create_task(fleet.let_pods_run())]
            yield fleet
            for task in tasks:
                task.cancel()
