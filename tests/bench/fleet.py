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
_LABEL = "finetune.dev/job"
_ADDED = b'{"type":"ADDED"'
_STATE = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
_CONTAINER = {"name": "prepare", "image": "x", "imageID": "x", "ready": True, "restartCount": 0, "state": _STATE}
_RUNNING = json.dumps({"status": {"phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [_CONTAINER]}})
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


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

    async def let_pods_run(self) -> None:
        """Say of each pod of a stage that it runs, as a kubelet would, until cancelled."""
        query = {"watch": "true", "labelSelector": _LABEL, "timeoutSeconds": "86400"}
        timeout, headers = aiohttp.ClientTimeout(total=None), {"Accept": _METADATA_ONLY}
        url = f"{self.server}/api/v1/pods"
        async with self.session.get(url, params=query, headers=headers, timeout=timeout) as response:
            async for line in response.content:
                if line.startswith(_ADDED):
                    metadata = json.loads(line)["object"]["metadata"]
                    await self._let_run(metadata["namespace"], metadata["name"])

    async def _let_run(self, namespace: str, name: str) -> None:
        url = f"{self.server}/api/v1/namespaces/{namespace}/pods/{name}/status"
        headers = {"Content-Type": "application/merge-patch+json", "Accept": _METADATA_ONLY}
        async with self.session.patch(url, data=_RUNNING, headers=headers) as response:
            text = await response.text()
            assert response.status in (200, 404), text
        self.running += 1

    def delays(self, names: list[str]) -> list[float]:
        """Return how many seconds after its creation each job had its first Job, in ascending order."""
        return sorted(self.begun[name] - self.created[name] for name in names)

    async def watch_jobs(self) -> None:
        """Note when the first Job of each FineTuneJob appears, until cancelled."""
        query = {"watch": "true", "labelSelector": _LABEL, "timeoutSeconds": "86400"}
        url = f"{self.server}/apis/batch/v1/jobs"
        timeout = aiohttp.ClientTimeout(total=None)
        headers = {"Accept": _METADATA_ONLY}
        async with self.session.get(url, params=query, headers=headers, timeout=timeout) as response:
            async for line in response.content:
                if line.startswith(_ADDED):
                    name = json.loads(line)["object"]["metadata"]["labels"][_LABEL]
                    self.begun.setdefault(name, time.monotonic())
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
        tasks = [asyncio.create_task(fleet.watch_jobs()), asyncio.create_task(fleet.let_pods_run())]
        try:
            yield fleet
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
