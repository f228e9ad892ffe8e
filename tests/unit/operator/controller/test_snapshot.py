"""What is believed of a server's pod that does not answer."""

import aiohttp
import pytest
from finetune_api.contract.routes import LoadedReport
from finetune_operator.controller.cache import Store
from finetune_operator.controller.pod_client import Pods
from finetune_operator.controller.snapshot import Observer
from finetune_operator.kube.kinds import Manifest
from finetune_operator.settings import Settings
from finetune_operator.state.child_jobs import ServerPod

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


class Answers(Pods):
    """Pods that answer, or do not."""

    answer: LoadedReport | None = None

    async def read_loaded(self, address: str) -> LoadedReport | None:
        return self.answer if address == "10.0.0.7" else None


class Watched:
    """An observer of one server with one pod, and a clock that stands."""

    def __init__(self, session: aiohttp.ClientSession, patch: pytest.MonkeyPatch) -> None:
        self.pods, self.now = Answers(session), 1000.0
        store = Store()
        store.put(POD)
        self.observer = Observer(store, self.pods, SETTINGS)
        patch.setattr("finetune_operator.controller.snapshot.time.monotonic", lambda: self.now)

    async def look(self, answer: LoadedReport | None, after: float = 0) -> ServerPod:
        self.pods.answer = answer
        self.now += after
        (pod,) = (await self.observer.see_server(SERVER)).pods
        return pod


async def test_a_pod_is_believed_for_a_moment_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with aiohttp.ClientSession() as session:
        watched = Watched(session, monkeypatch)
        assert (await watched.look(REPORT)).loaded == REPORT
        late = [await watched.look(None, after) for after in (10, 4, 2, 100)]
        assert [(pod.loaded, pod.is_unheard) for pod in late] == [(REPORT, False)] * 2 + [(None, False)] * 2
        assert (await watched.look(REPORT)).loaded == REPORT


async def test_a_pod_that_never_answered_is_unheard_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with aiohttp.ClientSession() as session:
        watched = Watched(session, monkeypatch)
        looks = [await watched.look(None, after) for after in (0, 14, 2)]
        assert [(pod.loaded, pod.is_unheard) for pod in looks] == [(None, True)] * 2 + [(None, False)]
        heard = await watched.look(REPORT)
        assert (heard.loaded, heard.is_unheard) == (REPORT, False)
