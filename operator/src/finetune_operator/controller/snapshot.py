"""Gathers what the plans need to know: from the store, and from running pods. Reads only."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from finetune_api.artifact import Incumbent
from finetune_api.conditions import ConditionType
from finetune_api.contract.mounts import DEFAULT_CLAIM
from finetune_api.contract.routes import LoadedReport
from finetune_api.meta import ROUTES_ANNOTATION, STAGE_LABEL
from finetune_api.stage import Stage
from finetune_api.uris import parse_uri

from finetune_operator.controller.cache import Store, server_of
from finetune_operator.controller.pod_client import Pods
from finetune_operator.job.evaluation import find_incumbent, find_job_under_evaluation
from finetune_operator.job.quota import QUOTA_RESOURCES, QuotaUsage, count_usage, is_unfinished
from finetune_operator.job.snapshot import JobSnapshot
from finetune_operator.kube.kinds import Key, Manifest, controller_uid, key_of, label_of
from finetune_operator.manifests.names import routes_name
from finetune_operator.server.plan import ServerSnapshot
from finetune_operator.server.routes import versions_by_name
from finetune_operator.settings import Limit, Settings
from finetune_operator.state.child_jobs import Attempt, State, attempt_of, running_ip, view_attempt, view_server_pod
from finetune_operator.state.conditions import true_conditions
from finetune_operator.state.views import JobView, view_job, view_server

_MOST_VIEWS = 1_000
_BELIEVED_SECONDS = 15.0
"""How long what is known of a pod stands when no answer comes: whether it is ready the kubelet says."""


@dataclass
class Observer:
    """What can be seen of the cluster."""

    store: Store
    pods: Pods
    settings: Settings
    _reports: dict[Key, tuple[float, LoadedReport | None]] = field(default_factory=dict)
    """By a server's pod when it last answered, by the monotonic clock, and what; or since when it is asked in vain."""
    _views: OrderedDict[str, tuple[str, JobView]] = field(default_factory=OrderedDict)
    """By uid the version that was read last, and what it said: jobs of one server are looked at again and again."""

    def jobs(self, job: JobView) -> list[Manifest]:
        """Return the Jobs that a FineTuneJob controls."""
        children = self.store.children("Job", Key("FineTuneJob", job.namespace, job.name))
        return [child for child in children if controller_uid(child) == job.uid]

    def attempts(self, job: JobView) -> list[Attempt]:
        """Return the attempts of a FineTuneJob whose Jobs the cluster still has."""
        pods = self.store.children("Pod", Key("FineTuneJob", job.namespace, job.name))
        attempts = []
        for child in self.jobs(job):
            mine = [pod for pod in pods if controller_uid(pod) == child["metadata"]["uid"]]
            attempt = view_attempt(child, mine)
            if attempt is not None:
                attempts.append(attempt)
        return attempts

    async def see_job(self, job: JobView, attempts: list[Attempt]) -> JobSnapshot:
        """Gather what bears on a FineTuneJob beside its attempts; a running training is asked for its progress."""
        key = Key("FineTuneJob", job.namespace, job.name)
        running = [one for one in attempts if one.stage is Stage.TRAIN and one.state is State.ACTIVE and one.pod_ip]
        progress = await self.pods.read_progress(running[-1].pod_ip) if running and running[-1].pod_ip else None
        raw = self.store.get(key)
        name = server_of(raw) if raw else None
        server = self.store.get(Key("ModelServer", job.namespace, name)) if name else None
        earlier = self._earlier(job)
        return JobSnapshot(
            attempts=attempts,
            parent=view_job(earlier) if earlier else None,
            server=view_server(server) if server else None,
            controls_server=server is not None and controller_uid(server) == job.uid,
            server_is_busy=self._is_evaluating(name, job),
            has_default_claim=self.store.get(Key("PersistentVolumeClaim", job.namespace, DEFAULT_CLAIM)) is not None,
            progress=progress,
            incumbent=self._incumbent(job, server),
            newer_job=self._newer_job(job, name) if name else None,
            orphaned_job=self._stray(key),
            lingering_pods=self._leftover(key),
            other_usage=self._others(job),
            has_dependents=self._is_awaited(key),
        )

    def _stray(self, key: Key) -> str:
        """Return the name of a stage's Job that nobody controls; empty where there is none."""
        jobs = self.store.children("Job", key)
        return next((one["metadata"]["name"] for one in jobs if attempt_of(one) and controller_uid(one) is None), "")

    def _leftover(self, key: Key) -> list[str]:
        """Return the stages' pods that have not ended and whose Job is gone: whoever deleted it, they still work."""
        jobs = {child["metadata"]["uid"] for child in self.store.children("Job", key)}
        return [
            pod["metadata"]["name"]
            for pod in self.store.children("Pod", key)
            if label_of(pod, STAGE_LABEL) and is_unfinished(pod) and controller_uid(pod) not in jobs
        ]

    def _others(self, job: JobView) -> QuotaUsage:
        """Return what the other jobs of the namespace hold and wait for; nothing where it has no limit."""
        if self.settings.limits.of(job.namespace) == Limit():
            return QuotaUsage()
        return count_usage(
            job.name,
            self.store.at_work(job.namespace),
            {kind: self.store.waiting(job.namespace, kind) for kind in QUOTA_RESOURCES},
            self.store.unended("Job", job.namespace),
            self.store.unended("Pod", job.namespace),
            self.settings.gpu.resource_name,
        )

    def _is_awaited(self, key: Key) -> bool:
        """Tell whether another job is to begin with this one's result, and has not taken it over yet."""
        followers = (self._view(raw).status for raw in self.store.followers(key))
        return any(
            status.warm_start is None and ConditionType.FAILED not in true_conditions(status.conditions)
            for status in followers
        )

    def _earlier(self, job: JobView) -> Manifest | None:
        """Return the FineTuneJob that the job begins with, while its result is not taken over yet."""
        uri = parse_uri(job.spec.model.uri) if job.spec else None
        if uri is None or uri.scheme != "finetunejob":
            return None
        return self.store.get(Key("FineTuneJob", job.namespace, uri.authority))

    def _incumbent(self, job: JobView, server: Manifest | None) -> Incumbent:
        """Return what the job's result would replace."""
        if job.spec is None or server is None:
            return Incumbent()
        jobs = self._jobs_of(job.namespace, server["metadata"]["name"])
        others = [one for one in jobs if one.uid != job.uid]
        return find_incumbent(job.spec.serving, view_server(server), others)

    def _is_evaluating(self, server: str | None, job: JobView) -> bool:
        """Tell whether a server evaluates the result of another job."""
        evaluated = find_job_under_evaluation(server, self._jobs_of(job.namespace, server)) if server else None
        return evaluated is not None and evaluated.uid != job.uid

    def _newer_job(self, job: JobView, server: str) -> str | None:
        """Return the job that was proven last under this job's name, if that is another one."""
        if job.spec is None or job.spec.serving is None:
            return None
        proven = versions_by_name(self._jobs_of(job.namespace, server)).get(job.spec.serving.model_name)
        return proven[-1].name if proven and proven[-1].uid != job.uid else None

    def _jobs_of(self, namespace: str, server: str) -> list[JobView]:
        """Return the jobs that the server hosts: those that name it, and the one that made it."""
        raw_server = self.store.get(Key("ModelServer", namespace, server))
        maker = controller_uid(raw_server) if raw_server else None
        return [
            self._view(raw)
            for raw in self.store.jobs_of(namespace, server)
            if not raw["metadata"].get("deletionTimestamp")
            and (raw["spec"]["serving"].get("server") or raw["metadata"]["uid"] == maker)
        ]

    def _view(self, raw: Manifest) -> JobView:
        uid, version = raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]
        known = self._views.pop(uid, None)
        view = known[1] if known and known[0] == version else view_job(raw)
        self._views[uid] = version, view
        if len(self._views) > _MOST_VIEWS:
            self._views.popitem(last=False)
        return view

    async def see_server(self, manifest: Manifest) -> ServerSnapshot:
        """Gather what bears on a ModelServer; its pods are asked what they have loaded."""
        key = key_of(manifest)
        uid = manifest["metadata"]["uid"]
        conflict = ""
        for kind, name in (
            ("Deployment", key.name),
            ("Service", key.name),
            ("PodDisruptionBudget", key.name),
            ("NetworkPolicy", key.name),
            ("HorizontalPodAutoscaler", key.name),
            ("ConfigMap", routes_name(key.name)),
        ):
            child = self.store.get(Key(kind, key.namespace, name))
            if child is not None and controller_uid(child) != uid:
                conflict = f"{kind} {name} exists and is not this server's"
        raw_pods = self.store.children("Pod", key)
        self._reports = {one: said for one, said in self._reports.items() if self.store.get(one)}
        heard = await asyncio.gather(*map(self._loaded, raw_pods))
        pods = [
            view_server_pod(raw, ROUTES_ANNOTATION, report, is_unheard=is_unheard)
            for raw, (report, is_unheard) in zip(raw_pods, heard, strict=True)
        ]
        has_autoscaler = self.store.get(Key("HorizontalPodAutoscaler", key.namespace, key.name)) is not None
        return ServerSnapshot(self._jobs_of(key.namespace, key.name), pods, conflict, has_autoscaler)

    async def _loaded(self, raw: Manifest) -> tuple[LoadedReport | None, bool]:
        """Ask a pod what it has loaded; one that is only slow to answer is believed what it said a moment ago.

        Returns:
            What it says, and whether it was not heard of yet by this operator, which has just begun to ask.
        """
        address, pod, now = running_ip(raw), key_of(raw), time.monotonic()
        if address is None:
            return None, False
        report = await self.pods.read_loaded(address)
        since, known = (now, report) if report else self._reports.get(pod, (now, None))
        self._reports[pod] = since, known
        is_fresh = now - since < _BELIEVED_SECONDS
        return (known if is_fresh else None), known is None and is_fresh
