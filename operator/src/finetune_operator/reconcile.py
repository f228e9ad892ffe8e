"""Brings one object a step further: observe, plan, apply, status, events. Decisions are made in the plans."""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.digest import digest_value
from finetune_api.meta import APPLIED_ANNOTATION

from finetune_operator.cluster import ApiError, Cluster
from finetune_operator.draft import STAGE_CONDITIONS, Plan
from finetune_operator.events import build_event
from finetune_operator.kinds import SERVER_POD, Key, Manifest, controller_uid, key_of
from finetune_operator.leader import LeadershipLostError
from finetune_operator.metrics import (
    JOBS,
    QUEUE_DEPTH,
    RECONCILE_ERRORS,
    RECONCILE_SECONDS,
    STAGE_SECONDS,
    WRITES,
)
from finetune_operator.observe import (
    Attempt,
    view_job,
    view_server,
)
from finetune_operator.observer import Observer
from finetune_operator.plan_job import plan_job
from finetune_operator.plan_server import ServerPlan, plan_server
from finetune_operator.settings import Settings
from finetune_operator.status import Conditions, Event
from finetune_operator.store import Store, concerned
from finetune_operator.workqueue import WorkQueue

_LOG = logging.getLogger(__name__)
_REFUSALS = {400, 403, 404, 422}
"""The API server's way of saying that the same request would be refused again."""
_REFUSED_AGAIN_SECONDS = 30.0


@dataclass
class Reconciler:
    """Everything that a reconciliation needs."""

    cluster: Cluster
    store: Store
    queue: WorkQueue
    observer: Observer
    settings: Settings
    instance: str

    async def work(self) -> None:
        """Take keys from the queue for ever; a failure of one key delays that key alone.

        Raises:
            LeadershipLostError: this process may write no more.
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
                delay = self.queue.failed(key)
                expected = isinstance(error, ApiError)
                _LOG.log(
                    logging.WARNING if expected else logging.ERROR,
                    "comes again in %.1f s: %s",
                    delay,
                    error,
                    exc_info=None if expected else error,
                    extra=_about(key),
                )
            else:
                self.queue.done(key)
            RECONCILE_SECONDS.labels(key.kind).observe(time.monotonic() - started)

    async def reconcile(self, key: Key) -> None:
        """Bring one FineTuneJob or ModelServer a step further."""
        manifest = self.store.get(key)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            return
        now = datetime.now(UTC).replace(microsecond=0)
        plan: Plan | ServerPlan
        if key.kind == "FineTuneJob":
            job = view_job(manifest)
            seen = await self.observer.see_job(job)
            plan = plan_job(job, seen, self.settings, now)
        else:
            plan = plan_server(view_server(manifest), await self.observer.see_server(manifest), self.settings, now)
        again_after = plan.again_after
        refused = await self._apply_all(manifest, plan.apply)
        status, events = plan.status, list(plan.events)
        if refused:
            status, events = _refuse(manifest, refused, now)
            again_after = _REFUSED_AGAIN_SECONDS
        else:
            for pod, annotations in plan.annotate if isinstance(plan, ServerPlan) else ():
                await self._annotate(key.namespace, pod, annotations)
        if status != manifest.get("status"):
            written = await self._write_status(manifest, status)
            if key.kind == "FineTuneJob":
                _observe_stages(manifest, written, self.observer.attempts(key))
            for event in events:
                await self.cluster.create_event(build_event(manifest, event, self.instance, now))
                _LOG.info("%s: %s", event.reason, event.message, extra=_about(key, manifest))
        if again_after is not None:
            self.queue.add_after(key, again_after)

    async def _apply_all(self, owner: Manifest, children: tuple[Manifest, ...]) -> tuple[Reason, str] | None:
        """Apply what differs from what was applied before; return why the API server refuses it."""
        for child in children:
            key = key_of(child)
            known = self.store.get(key)
            is_shared = not child["metadata"].get("ownerReferences")
            if known and not is_shared and controller_uid(known) != owner["metadata"]["uid"]:
                return Reason.CONFLICT, f"{key.kind} {key.name} exists and belongs to someone else"
            digest = digest_value(child)
            if known and known["metadata"].get("annotations", {}).get(APPLIED_ANNOTATION) == digest:
                continue
            metadata = child["metadata"] | {"annotations": {APPLIED_ANNOTATION: digest}}
            try:
                if known and child["kind"] == "Deployment" and "replicas" not in child["spec"]:
                    await self.cluster.keep_replicas(known)
                self._remember(await self.cluster.apply(child | {"metadata": metadata}))
            except ApiError as error:
                if error.code in _REFUSALS:
                    return Reason.CREATE_REFUSED, f"{key.kind} {key.name}: {error.message}"
                raise
            WRITES.labels(key.kind, "apply").inc()
        return None

    async def _annotate(self, namespace: str, pod: str, annotations: dict[str, str]) -> None:
        try:
            self._remember(await self.cluster.annotate(SERVER_POD, namespace, pod, annotations))
        except ApiError as error:
            if error.code != 404:
                raise
        WRITES.labels("Pod", "annotate").inc()

    async def _write_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        metadata = {key: manifest["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        body = {
            "apiVersion": manifest["apiVersion"],
            "kind": manifest["kind"],
            "metadata": metadata,
            "status": status,
        }
        written = await self.cluster.apply_status(body)
        WRITES.labels(manifest["kind"], "status").inc()
        self._remember(written)
        return written

    def _remember(self, manifest: Manifest) -> None:
        """Keep the answer to a write, and tell whom it concerns: the watch will bring nothing newer."""
        change = self.store.put(manifest)
        for key in concerned(self.store, change) if change else ():
            self.queue.add(key)


def count_jobs(store: Store) -> None:
    """Bring the gauge of jobs by stage and reason up to date."""
    JOBS.clear()
    for key in store.keys("FineTuneJob"):
        status = (store.get(key) or {}).get("status") or {}
        JOBS.labels(status.get("stage", "Pending"), status.get("reason", "Pending")).inc()


def _refuse(manifest: Manifest, refused: tuple[Reason, str], now: datetime) -> tuple[Manifest, list[Event]]:
    """Say in the present status that the API server does not let the children be; nothing else moves on."""
    view = view_job(manifest) if manifest["kind"] == "FineTuneJob" else view_server(manifest)
    before = view.status.conditions
    conditions = Conditions.start(before, view.generation, now)
    reason, message = refused
    conditions.set(ConditionType.READY, status=False, reason=reason, message=message)
    listed = conditions.listed()
    status = view.status.model_copy(update={"conditions": listed, "reason": reason})
    is_news = (ConditionType.READY, reason) not in {(one.type, one.reason) for one in before}
    return status.to_dict(), [Event("Warning", reason, message[:1024])] if is_news else []


def _observe_stages(before: Manifest, after: Manifest, attempts: list[Attempt]) -> None:
    """Record how long an attempt took when the status first says that its stage ended."""
    ended = {
        condition["type"]
        for condition in after.get("status", {}).get("conditions", [])
        if condition["status"] == "True"
    } - {
        condition["type"]
        for condition in (before.get("status") or {}).get("conditions", [])
        if condition["status"] == "True"
    }
    for attempt in attempts:
        if not attempt.started or not attempt.finished:
            continue
        if STAGE_CONDITIONS[attempt.stage] in ended:
            seconds = (attempt.finished - attempt.started).total_seconds()
            STAGE_SECONDS.labels(attempt.stage.lower(), attempt.state.lower()).observe(seconds)


def _about(key: Key, manifest: Manifest | None = None) -> dict[str, str]:
    uid = {"uid": manifest["metadata"]["uid"]} if manifest else {}
    return {"kind": key.kind, "namespace": key.namespace, "object": key.name} | uid
