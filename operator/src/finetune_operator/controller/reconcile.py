"""Reconciles one object: recover attempts, read a snapshot, plan, apply, write the status, publish events.

The plans make the decisions; they read nothing and write nothing.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from finetune_api.conditions import ConditionType, Reason

from finetune_operator.controller.apply import PERMANENT_ERRORS, Applier
from finetune_operator.controller.cache import Cache
from finetune_operator.controller.events import build_event
from finetune_operator.controller.recovery import recover_attempts
from finetune_operator.controller.snapshot import SnapshotReader
from finetune_operator.job.plan import plan_job
from finetune_operator.kube.client import ApiError, KubeClient
from finetune_operator.kube.kinds import Key, Manifest, key_of
from finetune_operator.kube.leader import LeadershipLostError
from finetune_operator.kube.workqueue import WorkQueue
from finetune_operator.metrics import (
    QUEUE_DEPTH,
    RECONCILE_ERRORS,
    RECONCILE_SECONDS,
    STAGE_SECONDS,
)
from finetune_operator.server.plan import plan_server
from finetune_operator.settings import Settings
from finetune_operator.state.conditions import STAGE_CONDITIONS, Conditions, Event, raw_true_conditions
from finetune_operator.state.plan import Plan
from finetune_operator.state.views import view_job, view_server

_LOG = logging.getLogger(__name__)
_REFUSED_RETRY_SECONDS = 30.0
_EVENT_RETRY_SECONDS = 1.0


@dataclass
class Reconciler:
    """Reconciles FineTuneJobs and ModelServers."""

    client: KubeClient
    applier: Applier
    cache: Cache
    queue: WorkQueue
    reader: SnapshotReader
    settings: Settings
    instance: str
    """`reportingInstance` of the events."""
    _pending_events: dict[Key, list[Manifest]] = field(default_factory=dict)
    """Events whose status is written, and which the API server has not accepted yet."""

    async def work(self) -> None:
        """Reconcile keys from the queue; this never returns. A failure of one key delays only that key.

        Raises:
            LeadershipLostError: this process must not write any more.
        """
        while True:
            key = await self.queue.get()
            QUEUE_DEPTH.set(len(self.queue))
            started = time.monotonic()
            try:
                await self.reconcile(key)
            except LeadershipLostError:
                raise
            except Exception as error:  # noqa: BLE001 - one broken object must not stop the others
                RECONCILE_ERRORS.labels(key.kind).inc()
                delay = self.queue.requeue(key)
                is_expected = isinstance(error, ApiError)
                _LOG.log(
                    logging.WARNING if is_expected else logging.ERROR,
                    "requeued after %.1f s: %s",
                    delay,
                    error,
                    exc_info=None if is_expected else error,
                    extra=_log_fields(key),
                )
            else:
                self.queue.done(key)
            RECONCILE_SECONDS.labels(key.kind).observe(time.monotonic() - started)
            # A reconciliation that writes nothing never awaits: thousands in a row would block the health probes.
            await asyncio.sleep(0)

    async def reconcile(self, key: Key) -> None:
        """Reconcile one FineTuneJob or ModelServer."""
        manifest = self.cache.get(key)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            self._pending_events.pop(key, None)
            return
        await self._publish_events(key)
        now = datetime.now(UTC).replace(microsecond=0)
        if key.kind == "ModelServer":
            server_snapshot = await self.reader.read_server(manifest)
            plan = plan_server(view_server(manifest), server_snapshot, self.settings, now)
        else:
            job = view_job(manifest)
            attempts = await recover_attempts(job, self.reader, self.applier)
            job_snapshot = await self.reader.read_job(job, attempts)
            plan = plan_job(job, job_snapshot, self.settings, now)
        await self._execute(manifest, plan, now)

    async def _execute(self, manifest: Manifest, plan: Plan, now: datetime) -> None:
        """Apply the desired objects of a plan, write its status, publish its events, then delete objects."""
        key, requeue_after = key_of(manifest), plan.requeue_after
        created, refusal = await self.applier.apply(manifest, plan.desired)
        if created and not manifest.get("status") and self.queue.has_new:
            # Other new objects get their first Job before this one gets its first status: the Job triggers it again.
            return
        status, events = plan.status, list(plan.events)
        if refusal:
            status, events = _build_refused_status(manifest, refusal, now)
            requeue_after = _REFUSED_RETRY_SECONDS
        else:
            for pod, annotations in plan.pod_annotations:
                await self.applier.annotate_pod(key.namespace, pod, annotations)
        if status != manifest.get("status"):
            await self._update_status(manifest, status, events, now)
        if not refusal:
            await self.applier.delete(key, plan.deletions)
        if requeue_after is not None:
            self.queue.add_after(key, requeue_after)

    async def _update_status(self, manifest: Manifest, status: Manifest, events: list[Event], now: datetime) -> None:
        """Write a status, and only then publish its events."""
        key = key_of(manifest)
        written = await self._write_status(manifest, status)
        if key.kind == "FineTuneJob":
            self._record_stage_seconds(
                manifest, raw_true_conditions(written).keys() - raw_true_conditions(manifest).keys()
            )
        if events:
            pending = self._pending_events.setdefault(key, [])
            pending.extend(build_event(manifest, event, self.instance, now) for event in events)
            await self._publish_events(key)

    async def _publish_events(self, key: Key) -> None:
        """Publish the pending events of an object; a failure delays them and nothing else."""
        pending = self._pending_events.get(key, [])
        while pending:
            event = pending[0]
            try:
                await self.client.create_event(event)
            except ApiError as error:
                _LOG.warning("cannot publish event %s: %s", event["reason"], error, extra=_log_fields(key))
                if error.code not in PERMANENT_ERRORS:
                    self.queue.add_after(key, _EVENT_RETRY_SECONDS)
                    return
            else:
                uid = event["involvedObject"]["uid"]
                _LOG.info("%s: %s", event["reason"], event["message"], extra=_log_fields(key, uid))
            del pending[0]
        self._pending_events.pop(key, None)

    def _record_stage_seconds(self, manifest: Manifest, new_conditions: set[str]) -> None:
        """Record the durations of the attempts at stages that have just ended."""
        stages = {stage for stage, condition in STAGE_CONDITIONS.items() if condition in new_conditions}
        for attempt in self.reader.read_attempts(view_job(manifest)) if stages else ():
            if attempt.stage in stages and attempt.started and attempt.finished:
                seconds = (attempt.finished - attempt.started).total_seconds()
                STAGE_SECONDS.labels(attempt.stage.lower(), attempt.state.lower()).observe(seconds)

    async def _write_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Write a status for exactly the version of the object that the plan is based on."""
        metadata = {key: manifest["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        identity = {name: manifest[name] for name in ("apiVersion", "kind")}
        written = await self.client.update_status(identity | {"metadata": metadata, "status": status})
        self.applier.update_cache(manifest | written)
        return written


def _build_refused_status(
    manifest: Manifest, refusal: tuple[Reason, str], now: datetime
) -> tuple[Manifest, list[Event]]:
    """Return the current status with the API server's refusal of a child as the reason, and the events about it."""
    view = view_job(manifest) if manifest["kind"] == "FineTuneJob" else view_server(manifest)
    before = view.status.conditions
    conditions = Conditions.start(before, view.generation, now)
    reason, message = refusal
    conditions.set(ConditionType.READY, status=False, reason=reason, message=message)
    fields: dict[str, object] = {
        "observed_generation": view.generation,
        "conditions": conditions.listed(),
        "reason": reason,
    }
    if manifest["kind"] == "FineTuneJob":
        # The job had quota: it must not block those behind it in the queue.
        fields["waiting_for"] = None
    status = view.status.model_copy(update=fields)
    is_reported = (ConditionType.READY, reason) in {(condition.type, condition.reason) for condition in before}
    return status.to_dict(), [] if is_reported else [Event("Warning", reason, message[:1024])]


def _log_fields(key: Key, uid: str | None = None) -> dict[str, str]:
    fields = {"kind": key.kind, "namespace": key.namespace, "object": key.name}
    return fields | ({"uid": uid} if uid else {})
