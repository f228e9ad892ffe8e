"""Takes a FineTuneJob through its stages on this machine, with the decisions of the operator."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from finetune_api.artifact import Incumbent
from finetune_api.conditions import ConditionType, Reason
from finetune_api.contract.jobfile import JobDirectory
from finetune_api.contract.mounts import ROUTES_FILE, below
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobstatus import TrainingProgress
from finetune_api.meta import ROUTES_ANNOTATION
from finetune_api.uris import parse_uri
from finetune_operator.job.evaluation import find_incumbent
from finetune_operator.job.plan import plan_job
from finetune_operator.job.snapshot import JobSnapshot
from finetune_operator.manifests.names import job_file
from finetune_operator.server.plan import ServerSnapshot, plan_server
from finetune_operator.server.routes import find_newer_job
from finetune_operator.settings import Images, Settings, Sources
from finetune_operator.state.child_jobs import Attempt, view_attempt, view_server_pod
from finetune_operator.state.conditions import Event, raw_true_conditions
from finetune_operator.state.views import JobView, ServerView, view_job, view_server

from finetune.errors import CommandError
from finetune.local.mounts import mount_volumes
from finetune.local.processes import Process, end_job, format_time, start_process
from finetune.local.store import Store, write_atomically
from finetune.manifests import Manifest

_SILENT = (Reason.SERVER_NOT_READY, Reason.WAITING_FOR_APPROVAL)
"""Reasons of events that are not shown: a server ended with the previous run and starts now; the run ends with that."""
_SECONDS = 0.5
"""How often the processes are looked at."""


class Display(Protocol):
    """What a run shows while it works."""

    def show(self, job: JobView, progress: TrainingProgress | None) -> None:
        """Show the state of the job."""

    def report(self, event: Event) -> None:
        """Show an event of the job."""


@dataclass
class Runner:
    """A run of one FineTuneJob, whose objects are in a store below `root`."""

    root: Path
    manifest: Path
    """The file of the job. The keys of ConfigMaps are files beside it."""
    directories: Mapping[str, Path]
    """Directories for claims and ConfigMaps, by name."""
    display: Display
    server: Process | None = None
    """The process of the ModelServer, once it runs."""
    processes: dict[str, Process] = field(default_factory=dict)
    """The process of the running stage, by the name of its Job."""

    @property
    def store(self) -> Store:
        """The objects of all runs below the root."""
        return Store(self.root)

    def run(self, name: str) -> JobView:
        """Run a job of the store until it is Ready or needs the user; return it.

        A run that was interrupted continues: the stages that are done are not repeated, a training resumes from its
        checkpoint.

        Raises:
            CommandError: a stage cannot start.
        """
        self._end_lost_processes(name)
        while True:
            job = self._reconcile(name)
            if _has_ended(job) or _waits_for_user(job):
                return job
            time.sleep(_SECONDS)

    def stop(self) -> None:
        """Stop all processes, as a pod is stopped: a training saves a checkpoint."""
        for process in (*self.processes.values(), *([self.server] if self.server else [])):
            process.stop()

    def _end_lost_processes(self, name: str) -> None:
        """Record that what an earlier run started has ended: stages without a result, and servers."""
        for job in list_child_jobs(self.store, name):
            if not raw_true_conditions(job):
                self.store.put(end_job(job, succeeded=False))
        for server in self.store.list("ModelServer"):
            status = server.get("status", {})
            models = [model | {"loadedPods": 0} for model in status.get("models", [])]
            self.store.put(server | {"status": status | {"readyReplicas": 0, "models": models}})

    def _reconcile(self, name: str) -> JobView:
        """Look at the processes, plan, and do what is planned; return the job with its new status."""
        manifest = self.store.get("FineTuneJob", name)
        if manifest is None:
            raise CommandError(f"the state of {name} below {self.root} was removed while it ran")
        job, now = view_job(manifest), datetime.now(UTC).replace(microsecond=0)
        settings = self._build_settings(job)
        progress = next((known for process in self.processes.values() if (known := process.read_progress())), None)
        plan = plan_job(job, self._read_snapshot(job, progress), settings, now)
        for child in plan.desired:
            if child["kind"] == "Job":
                self._start_stage(child, now)
            elif child["kind"] == "ModelServer" and self.store.get("ModelServer", child["metadata"]["name"]) is None:
                self.store.put(child)
        for deletion in plan.deletions:
            self._delete(deletion.name)
        self.store.put(manifest | {"status": plan.status})
        for event in plan.events:
            if event.reason not in _SILENT:
                self.display.report(event)
        job = view_job(manifest | {"status": plan.status})
        self.display.show(job, progress)
        if (server := _find_server_name(job)) and ConditionType.EVALUATED in _true_types(job):
            self._reconcile_server(server, settings, now)
        return job

    def _build_settings(self, job: JobView) -> Settings:
        """Return settings that name our programs as images, and allow the hosts that the user wrote down."""
        dataset = job.spec.dataset if job.spec else None
        sources = [*dataset.sources.values(), dataset.validation] if dataset else []
        uris = [parse_uri(source.uri) for source in sources if source]
        hosts = sorted({uri.authority for uri in uris if uri.scheme == "https"})
        images = Images(trainer="trainer", serving="serving")
        return Settings(images=images, sources=Sources(httpsHosts=hosts))

    def _read_snapshot(self, job: JobView, progress: TrainingProgress | None) -> JobSnapshot:
        serving = job.spec.serving if job.spec else None
        server_name = _find_server_name(job)
        server = self._find_server(server_name) if server_name else None
        jobs = self._list_jobs_of(server_name) if server_name else []
        others = [other for other in jobs if other.uid != job.uid]
        parent = self._find_parent(job)
        return JobSnapshot(
            attempts=self._list_attempts(job.name),
            parent=view_job(parent) if parent else None,
            server=server,
            controls_server=serving is not None and serving.template is not None,
            has_default_claim=True,
            progress=progress,
            incumbent=find_incumbent(serving, server, others) if job.spec else Incumbent(),
            newer_job=find_newer_job(job, jobs),
        )

    def _find_parent(self, job: JobView) -> Manifest | None:
        uri = parse_uri(job.spec.model.uri) if job.spec else None
        is_job = uri is not None and uri.scheme == "finetunejob"
        return self.store.get("FineTuneJob", uri.authority) if uri and is_job else None

    def _find_server(self, name: str) -> ServerView | None:
        manifest = self.store.get("ModelServer", name)
        return view_server(manifest) if manifest else None

    def _list_jobs_of(self, server: str) -> list[JobView]:
        """Return the jobs whose results a server hosts."""
        jobs = [view_job(manifest) for manifest in self.store.list("FineTuneJob")]
        return [job for job in jobs if _find_server_name(job) == server]

    def _list_attempts(self, name: str) -> list[Attempt]:
        attempts = []
        for job in list_child_jobs(self.store, name):
            process = self.processes.get(job["metadata"]["name"])
            known = self._record_end(job, process) if process else job
            pod = known.get("pod") or (process.as_pod() if process else None)
            attempts.append(view_attempt(known, [pod] if pod else []))
        return [attempt for attempt in attempts if attempt]

    def _record_end(self, job: Manifest, process: Process) -> Manifest:
        """Return a stage's Job, with its outcome and its pod once its process has ended."""
        if not process.has_ended() or raw_true_conditions(job):
            return job
        return self.store.put(end_job(job, succeeded=process.has_succeeded()) | {"pod": process.as_pod()})

    def _start_stage(self, child: Manifest, now: datetime) -> None:
        """Start the process of a stage's Job, unless it was started."""
        name, template = child["metadata"]["name"], child["spec"]["template"]
        if self.store.get("Job", name):
            return
        mount_volumes(template["spec"], self.root, self.directories, self.manifest.parent)
        spec = child["spec"] | {"suspend": False}  # No Kueue queues the processes of a machine.
        self.store.put(child | {"spec": spec, "status": {"startTime": format_time(now)}})
        annotations = template["metadata"]["annotations"]
        self.processes = {name: start_process(name, template["spec"], annotations, self.root)}

    def _delete(self, name: str) -> None:
        if process := self.processes.pop(name, None):
            process.stop()
        self.store.delete("Job", name)

    def _reconcile_server(self, name: str, settings: Settings, now: datetime) -> None:
        """Start the process of a ModelServer, give it its routes, and update its status."""
        manifest = self.store.get("ModelServer", name)
        if manifest is None:
            return
        server, pods = view_server(manifest), []
        if self.server:
            self.server.annotations.setdefault(ROUTES_ANNOTATION, "")
            pod = self.server.as_pod(is_ready=self.server.is_ready())
            pods = [view_server_pod(pod, ROUTES_ANNOTATION, self.server.read_loaded(), not_yet_observed=False)]
        plan = plan_server(server, ServerSnapshot(self._list_jobs_of(name), pods), settings, now)
        for child in plan.desired:
            if child["kind"] == "ConfigMap":
                self._write_routes(child["data"])
            elif child["kind"] == "Deployment" and self.server is None:
                pod_spec = child["spec"]["template"]["spec"]
                mount_volumes(pod_spec, self.root, self.directories, self.manifest.parent)
                self.server = start_process(name, pod_spec, {}, self.root)
        self.store.put(manifest | {"status": plan.status})

    def _write_routes(self, data: Mapping[str, str]) -> None:
        path = below(self.root, ROUTES_FILE)
        text = data[path.name]
        if not path.exists() or path.read_text() != text:
            write_atomically(path, text)


def _find_server_name(job: JobView) -> str | None:
    serving = job.spec.serving if job.spec else None
    return (serving.server or job.name) if serving else None


def _true_types(job: JobView) -> set[str]:
    return {condition.type for condition in job.status.conditions if condition.status == "True"}


def _has_ended(job: JobView) -> bool:
    return bool(_true_types(job) & {ConditionType.READY, ConditionType.FAILED})


def _waits_for_user(job: JobView) -> bool:
    """Return whether nothing happens before the user changes something: an approval, a server, a suspension."""
    refused = (ConditionType.ACCEPTED, ConditionType.APPROVED)
    is_refused = any(condition.type in refused and condition.status == "False" for condition in job.status.conditions)
    return is_refused or ConditionType.SUSPENDED in _true_types(job)


def adopt(store: Store, documents: list[Manifest], job: Manifest) -> None:
    """Write the ModelServers of a file and a FineTuneJob to the store.

    A ModelServer keeps its status.
    """
    for document in documents:
        if document["kind"] == "ModelServer":
            known = store.get("ModelServer", document["metadata"]["name"]) or document
            store.put(known | {"spec": document["spec"]})
    _adopt_job(store, job)


def _adopt_job(store: Store, manifest: Manifest) -> None:
    """Write the user's FineTuneJob to the store. It keeps its status and its files if its work is the same.

    A failed job, and one with another spec, start again: what a job does cannot be changed.
    """
    known = store.get("FineTuneJob", manifest["metadata"]["name"])
    if known and _work_of(known) == _work_of(manifest) and "Failed" not in raw_true_conditions(known):
        store.put(known | {"spec": manifest["spec"]})
        return
    name = manifest["metadata"]["name"]
    for job in list_child_jobs(store, name):
        store.delete("Job", job["metadata"]["name"])
    if manifest["spec"].get("serving", {}).get("template"):
        store.delete("ModelServer", name)  # The earlier job's own.
    store.put({key: value for key, value in manifest.items() if key != "status"})


def _work_of(manifest: Manifest) -> Manifest:
    """Return the spec without the fields that only control when work runs."""
    return FineTuneJobSpec.model_validate(manifest["spec"]).dump_without_scheduling()


def list_child_jobs(store: Store, name: str) -> list[Manifest]:
    """Return the stages' Jobs of a FineTuneJob."""
    return [job for job in store.list("Job") if job["metadata"]["ownerReferences"][0]["name"] == name]


def read_system_message(root: Path, job: JobView) -> str:
    """Return the system message with which the held-out conversations of a job begin; empty if they have none."""
    data = JobDirectory.of(job_file(job), root).heldout_data
    with data.open(encoding="utf-8") as lines:
        first = json.loads(next(lines, "{}"))
    messages = first.get("messages") or first.get("prompt")
    begins = isinstance(messages, list) and messages and messages[0].get("role") == "system"
    return str(messages[0]["content"]) if begins else ""
