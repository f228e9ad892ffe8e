"""Collects what the plans need to know: from the cache, from running pods, and for waiting pods from the API server.

Writes nothing.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from finetune_api.artifact import Incumbent
from finetune_api.conditions import ConditionType
from finetune_api.contract.mounts import DEFAULT_CLAIM
from finetune_api.contract.routes import LoadedReport
from finetune_api.meta import ROUTES_ANNOTATION, STAGE_LABEL
from finetune_api.stage import Stage
from finetune_api.uris import parse_uri

from finetune_operator.controller.cache import Cache
from finetune_operator.controller.indexes import (
    ACTIVE,
    BY_OWNER,
    BY_PARENT,
    BY_SERVER,
    UNFINISHED,
    WAITING,
    server_of,
)
from finetune_operator.controller.pod_client import PodClient
from finetune_operator.controller.volumes import read_volumes
from finetune_operator.job.evaluation import find_incumbent, find_job_under_evaluation
from finetune_operator.job.quota import QUOTA_RESOURCES, QuotaUsage, count_usage, is_unfinished
from finetune_operator.job.snapshot import JobSnapshot
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.kinds import Key, Manifest, controller_uid, key_of, label_of
from finetune_operator.manifests.names import routes_name
from finetune_operator.server.plan import ServerSnapshot
from finetune_operator.server.routes import find_newer_job
from finetune_operator.settings import Limit, Settings
from finetune_operator.state.child_jobs import (
    Attempt,
    AttemptState,
    attempt_of,
    running_ip,
    view_attempt,
    view_server_pod,
)
from finetune_operator.state.conditions import true_conditions
from finetune_operator.state.views import JobView, view_job, view_server

_MAX_VIEWS = 1_000
_REPORT_SECONDS = 15.0
"""How long the last report of a pod stays valid while the pod does not respond; readiness is the kubelet's."""


@dataclass
class SnapshotReader:
    """Reads snapshots of FineTuneJobs and ModelServers."""

    cache: Cache
    pods: PodClient
    settings: Settings
    client: KubeClient
    _reports: dict[Key, tuple[float, LoadedReport | None]] = field(default_factory=dict)
    """By a server's pod: when it last responded and its report; or since when it does not respond, and None."""
    _views: OrderedDict[str, tuple[str, JobView]] = field(default_factory=OrderedDict)
    """By uid the parsed version and its view: the jobs of a server are read again and again."""

    def read_jobs(self, job: JobView) -> list[Manifest]:
        """Return the Jobs that a FineTuneJob controls."""
        return [child for child in self._children("Job", _key_of(job)) if controller_uid(child) == job.uid]

    def read_attempts(self, job: JobView) -> list[Attempt]:
        """Return the attempts of a FineTuneJob whose Jobs still exist."""
        pods = self._children("Pod", _key_of(job))
        attempts = []
        for child in self.read_jobs(job):
            pods_of_child = [pod for pod in pods if controller_uid(pod) == child["metadata"]["uid"]]
            attempt = view_attempt(child, pods_of_child)
            if attempt is not None:
                attempts.append(attempt)
        return attempts

    async def read_job(self, job: JobView, attempts: list[Attempt]) -> JobSnapshot:
        """Return the snapshot of a FineTuneJob with these attempts; requests the progress of a running training."""
        key = _key_of(job)
        addresses = [
            attempt.pod_ip
            for attempt in attempts
            if attempt.stage is Stage.TRAIN and attempt.state is AttemptState.ACTIVE and attempt.pod_ip
        ]
        progress = await self.pods.read_progress(addresses[-1]) if addresses else None
        manifest = self.cache.get(key)
        name = server_of(manifest) if manifest else None
        server = self.cache.get(Key("ModelServer", job.namespace, name)) if name else None
        parent = self._parent(job)
        missing_volumes, unbound_claims = await read_volumes(self.client, job, attempts)
        return JobSnapshot(
            attempts=attempts,
            parent=view_job(parent) if parent else None,
            server=view_server(server) if server else None,
            controls_server=server is not None and controller_uid(server) == job.uid,
            server_is_busy=self._is_evaluating(name, job),
            has_default_claim=self.cache.get(Key("PersistentVolumeClaim", job.namespace, DEFAULT_CLAIM)) is not None,
            missing_volumes=missing_volumes,
            unbound_claims=unbound_claims,
            progress=progress,
            incumbent=self._incumbent(job, server),
            newer_job=find_newer_job(job, self._jobs_of(job.namespace, name)) if name else None,
            orphaned_job=self._orphaned_job(key),
            lingering_pods=self._lingering_pods(key),
            other_usage=self._quota_usage(job),
            has_dependents=self._has_dependents(key),
        )

    def _children(self, kind: str, owner: Key) -> list[Manifest]:
        """Return the Jobs or pods of an owner, ordered by name."""
        return _sorted_by_name(self.cache.by_index(kind, BY_OWNER, *owner))

    def _orphaned_job(self, key: Key) -> str:
        """Return the name of an attempt Job that has no controller; empty if there is none."""
        names = (
            child["metadata"]["name"]
            for child in self._children("Job", key)
            if attempt_of(child) and controller_uid(child) is None
        )
        return next(names, "")

    def _lingering_pods(self, key: Key) -> list[str]:
        """Return the names of stage pods that have not ended though their Job is gone."""
        jobs = {child["metadata"]["uid"] for child in self._children("Job", key)}
        return [
            pod["metadata"]["name"]
            for pod in self._children("Pod", key)
            if label_of(pod, STAGE_LABEL) and is_unfinished(pod) and controller_uid(pod) not in jobs
        ]

    def _quota_usage(self, job: JobView) -> QuotaUsage:
        """Return what the other jobs of the namespace use and wait for; empty if the namespace has no limit."""
        if self.settings.limits.of(job.namespace) == Limit():
            return QuotaUsage()
        return count_usage(
            job.name,
            self.cache.by_index("FineTuneJob", ACTIVE, job.namespace),
            {name: self.cache.by_index("FineTuneJob", WAITING, job.namespace, name) for name in QUOTA_RESOURCES},
            [*self.cache.by_index("Job", UNFINISHED, job.namespace), *self.cache.assumed("Job", job.namespace)],
            self.cache.by_index("Pod", UNFINISHED, job.namespace),
            self.settings.gpu.resource_name,
        )

    def _has_dependents(self, key: Key) -> bool:
        """Return whether another job will start from this one's result and has not recorded it yet."""
        children = self.cache.by_index("FineTuneJob", BY_PARENT, key.namespace, key.name)
        statuses = (self._view(child).status for child in children)
        return any(
            status.warm_start is None and ConditionType.FAILED not in true_conditions(status.conditions)
            for status in statuses
        )

    def _parent(self, job: JobView) -> Manifest | None:
        """Return the FineTuneJob that the job starts from, until the job has recorded its result."""
        uri = parse_uri(job.spec.model.uri) if job.spec else None
        if uri is None or uri.scheme != "finetunejob":
            return None
        return self.cache.get(Key("FineTuneJob", job.namespace, uri.authority))

    def _incumbent(self, job: JobView, server: Manifest | None) -> Incumbent:
        """Return the model that the job's result would replace."""
        if job.spec is None or server is None:
            return Incumbent()
        jobs = self._jobs_of(job.namespace, server["metadata"]["name"])
        others = [other for other in jobs if other.uid != job.uid]
        return find_incumbent(job.spec.serving, view_server(server), others)

    def _is_evaluating(self, server: str | None, job: JobView) -> bool:
        """Return whether a server evaluates the result of another job."""
        evaluated = find_job_under_evaluation(server, self._jobs_of(job.namespace, server)) if server else None
        return evaluated is not None and evaluated.uid != job.uid

    def _jobs_of(self, namespace: str, server: str) -> list[JobView]:
        """Return the jobs that a server hosts: those that name it, and the one that created it."""
        manifest = self.cache.get(Key("ModelServer", namespace, server))
        creator = controller_uid(manifest) if manifest else None
        return [
            self._view(job)
            for job in _sorted_by_name(self.cache.by_index("FineTuneJob", BY_SERVER, namespace, server))
            if not job["metadata"].get("deletionTimestamp")
            and (job["spec"]["serving"].get("server") or job["metadata"]["uid"] == creator)
        ]

    def _view(self, manifest: Manifest) -> JobView:
        uid, version = manifest["metadata"]["uid"], manifest["metadata"]["resourceVersion"]
        known = self._views.pop(uid, None)
        view = known[1] if known and known[0] == version else view_job(manifest)
        self._views[uid] = version, view
        if len(self._views) > _MAX_VIEWS:
            self._views.popitem(last=False)
        return view

    async def read_server(self, manifest: Manifest) -> ServerSnapshot:
        """Return the snapshot of a ModelServer; requests from its pods what they have loaded."""
        key = key_of(manifest)
        conflict, pods = self._find_conflict(manifest), self._children("Pod", key)
        self._reports = {pod: report for pod, report in self._reports.items() if self.cache.get(pod)}
        reports = await asyncio.gather(*map(self._read_loaded, pods))
        views = [
            view_server_pod(pod, ROUTES_ANNOTATION, report, not_yet_observed=not_yet_observed)
            for pod, (report, not_yet_observed) in zip(pods, reports, strict=True)
        ]
        has_autoscaler = self.cache.get(Key("HorizontalPodAutoscaler", key.namespace, key.name)) is not None
        return ServerSnapshot(self._jobs_of(key.namespace, key.name), views, conflict, has_autoscaler)

    def _find_conflict(self, server: Manifest) -> str:
        """Return the message about a child whose name another owner's object has; empty if there is none."""
        key, conflict = key_of(server), ""
        for kind, name in (
            ("Deployment", key.name),
            ("Service", key.name),
            ("PodDisruptionBudget", key.name),
            ("NetworkPolicy", key.name),
            ("HorizontalPodAutoscaler", key.name),
            ("ConfigMap", routes_name(key.name)),
        ):
            child = self.cache.get(Key(kind, key.namespace, name))
            if child is not None and controller_uid(child) != server["metadata"]["uid"]:
                conflict = f"{kind} {name} already exists and has another owner: delete or rename it"
        return conflict

    async def _read_loaded(self, pod: Manifest) -> tuple[LoadedReport | None, bool]:
        """Request what a pod has loaded; while it does not respond, its last report stays valid for a moment.

        Returns:
            The report, and whether this operator has not observed one yet because it has just started asking.
        """
        address, key, now = running_ip(pod), key_of(pod), time.monotonic()
        if address is None:
            return None, False
        response = await self.pods.read_loaded(address)
        since, report = (now, response) if response else self._reports.get(key, (now, None))
        self._reports[key] = since, report
        is_fresh = now - since < _REPORT_SECONDS
        return (report if is_fresh else None), report is None and is_fresh


def _key_of(job: JobView) -> Key:
    return Key("FineTuneJob", job.namespace, job.name)


def _sorted_by_name(manifests: Iterable[Manifest]) -> list[Manifest]:
    return sorted(manifests, key=lambda manifest: manifest["metadata"]["name"])
