"""How long the last report of a pod is valid while the pod does not respond."""

import aiohttp
import pytest
from finetune_api.contract.routes import LoadedReport
from finetune_operator.controller.cache import Cache
from finetune_operator.controller.indexes import INDEXERS
from finetune_operator.controller.pod_client import PodClient
from finetune_operator.controller.snapshot import SnapshotReader
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.kinds import Manifest
from finetune_operator.settings import Settings
from finetune_operator.state.child_jobs import ServerPod
from kubernetes.aio.client import ApiClient

SETTINGS = Settings.model_validate({"images": {"trainer": "trainer:1", "serving": "serving:1"}})
REPORT = LoadedReport(models=[])
SERVER: Manifest = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "ModelServer",
    "metadata": {"name": "shared", "namespace": "team", "uid": "1", "resourceVersion": "1"},
}
POD: Manifest = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "pod",
        "namespace": "team",
        "uid": "2",
        "resourceVersion": "2",
        "labels": {"finetune.dev/server": "shared"},
    },
    "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]},
}


class FakePodClient(PodClient):
    """Pods that respond with `response`, or do not respond."""

    response: LoadedReport | None = None

    async def read_loaded(self, address: str) -> LoadedReport | None:
        return self.response if address == "10.0.0.7" else None


class Scene:
    """One server with one pod, and a clock that only `read` advances."""

    def __init__(self, session: aiohttp.ClientSession, api: ApiClient, patch: pytest.MonkeyPatch) -> None:
        self.pods, self.now = FakePodClient(session), 1000.0
        cache = Cache(INDEXERS)
        cache.put(POD)
        self.reader = SnapshotReader(cache, self.pods, SETTINGS, KubeClient(api))
        patch.setattr("finetune_operator.controller.snapshot.time.monotonic", lambda: self.now)

    async def read(self, response: LoadedReport | None, after: float = 0) -> ServerPod:
        self.pods.response = response
        self.now += after
        (pod,) = (await self.reader.read_server(SERVER)).pods
        return pod


async def test_the_last_report_stays_valid_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with aiohttp.ClientSession() as session, ApiClient() as api:
        scene = Scene(session, api, monkeypatch)
        assert (await scene.read(REPORT)).loaded == REPORT
        late = [await scene.read(None, after) for after in (10, 4, 2, 100)]
        assert [(pod.loaded, pod.not_yet_observed) for pod in late] == [(REPORT, False)] * 2 + [(None, False)] * 2
        assert (await scene.read(REPORT)).loaded == REPORT


async def test_a_pod_that_never_responded_counts_as_not_yet_observed_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with aiohttp.ClientSession() as session, ApiClient() as api:
        scene = Scene(session, api, monkeypatch)
        reads = [await scene.read(None, after) for after in (0, 14, 2)]
        assert [(pod.loaded, pod.not_yet_observed) for pod in reads] == [(None, True)] * 2 + [(None, False)]
        pod = await scene.read(REPORT)
        assert (pod.loaded, pod.not_yet_observed) == (REPORT, False)
