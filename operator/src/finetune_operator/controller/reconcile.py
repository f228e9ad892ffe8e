"""Brings one object a step further: observe, plan, apply, status, events. Decisions are made in the plans."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from finetune_api.conditions import ConditionType, Reason

from finetune_operator.controller.apply import REFUSALS, Maker
from finetune_operator.controller.cache import Store
from finetune_operator.controller.events import build_event
from finetune_operator.controller.recovery import recover
from finetune_operator.controller.snapshot import Observer
from finetune_operator.job.plan import plan_job
from finetune_operator.kube.client import ApiError, Cluster
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
_REFUSED_AGAIN_SECONDS = 30.0
_UNTOLD_AGAIN_SECONDS = 1.0


@dataclass
class Reconciler:
    """Everything that a reconciliation needs."""

    cluster: Cluster
    maker: Maker
    store: Store
    queue: WorkQueue
    observer: Observer
    settings: Settings
    instance: str
    _untold: dict[Key, list[Manifest]] = field(default_factory=dict)
    """Events whose status is written, and which the API server has not taken yet."""

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
            # A look that finds nothing to do waits for nothing: ten thousand of them would let no probe be answered.
            await asyncio.sleep(0)

    async def reconcile(self, key: Key) -> None:
        """Bring one FineTuneJob or ModelServer a step further."""
        manifest = self.store.get(key)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            self._untold.pop(key, None)
            return
        await self._tell_events(key)
        now = datetime.now(UTC).replace(microsecond=0)
        plan = await self._decide(manifest, now)
        requeue_after = plan.requeue_after
        made, refused = await self.maker.make(manifest, plan.desired)
        if made and not manifest.get("status") and self.queue.has_new:
            # Those who are new get their first Job before this one gets its first word: what was made brings it back.
            return
        status, events = plan.status, list(plan.events)
        if refused:
            status, events = _refuse(manifest, refused, now)
            requeue_after = _REFUSED_AGAIN_SECONDS
        else:
            for pod, annotations in plan.pod_annotations:
                await self.maker.annotate(key.namespace, pod, annotations)
        if status != manifest.get("status"):
            await self._tell(manifest, status, events, now)
        if not refused:
            await self.maker.delete(key, plan.deletions)
        if requeue_after is not None:
            self.queue.add_after(key, requeue_after)

    async def _decide(self, manifest: Manifest, now: datetime) -> Plan:
        """Look at everything that bears on an object, and decide about it."""
        if manifest["kind"] == "ModelServer":
            return plan_server(view_server(manifest), await self.observer.see_server(manifest), self.settings, now)
        job = view_job(manifest)
        attempts = await recover(job, self.observer, self.maker)
        return plan_job(job, await self.observer.see_job(job, attempts), self.settings, now)

    async def _tell(self, manifest: Manifest, status: Manifest, events: list[Event], now: datetime) -> None:
        """Write a status, and only then what it says as events."""
        key = key_of(manifest)
        written = await self._write_status(manifest, status)
        if key.kind == "FineTuneJob":
            self._observe_stages(manifest, raw_true_conditions(written).keys() - raw_true_conditions(manifest).keys())
        if events:
            self._untold.setdefault(key, []).extend(build_event(manifest, one, self.instance, now) for one in events)
            await self._tell_events(key)

    async def _tell_events(self, key: Key) -> None:
        """Tell what is not told yet; what cannot be told now is told later, and holds up nothing."""
        untold = self._untold.get(key, [])
        while untold:
            event = untold[0]
            try:
                await self.cluster.create_event(event)
            except ApiError as error:
                _LOG.warning("%s is not told: %s", event["reason"], error, extra=_about(key))
                if error.code not in REFUSALS:
                    self.queue.add_after(key, _UNTOLD_AGAIN_SECONDS)
                    return
            else:
                _LOG.info("%s: %s", event["reason"], event["note"], extra=_about(key, event["regarding"]["uid"]))
            del untold[0]
        self._untold.pop(key, None)

    def _observe_stages(self, manifest: Manifest, ended: set[str]) -> None:
        """Record how long the attempts of the stages took that have just ended."""
        stages = {stage for stage, condition in STAGE_CONDITIONS.items() if condition in ended}
        for attempt in self.observer.attempts(view_job(manifest)) if stages else ():
            if attempt.stage in stages and attempt.started and attempt.finished:
                seconds = (attempt.finished - attempt.started).total_seconds()
                STAGE_SECONDS.labels(attempt.stage.lower(), attempt.state.lower()).observe(seconds)

    async def _write_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Write a status for the version of the object that was looked at, and for no other."""
        metadata = {key: manifest["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        identity = {name: manifest[name] for name in ("apiVersion", "kind")}
        written = await self.cluster.update_status(identity | {"metadata": metadata, "status": status})
        self.maker.remember(manifest | written)
        return written


def _refuse(manifest: Manifest, refused: tuple[Reason, str], now: datetime) -> tuple[Manifest, list[Event]]:
    """Say in the present status that the API server does not let the children be; nothing else moves on."""
    view = view_job(manifest) if manifest["kind"] == "FineTuneJob" else view_server(manifest)
    before = view.status.conditions
    conditions = Conditions.start(before, view.generation, now)
    reason, message = refused
    conditions.set(ConditionType.READY, status=False, reason=reason, message=message)
    listed = conditions.listed()
    # A job that was refused had room under its namespace's limits: nobody waits behind it.
    no_more = {"waiting_for": None} if manifest["kind"] == "FineTuneJob" else {}
    told = {"observed_generation": view.generation, "conditions": listed, "reason": reason}
    status = view.status.model_copy(update=told | no_more)
    is_news = (ConditionType.READY, reason) not in {(one.type, one.reason) for one in before}
    return status.to_dict(), [Event("Warning", reason, message[:1024])] if is_news else []


def _about(key: Key, uid: str | None = None) -> dict[str, str]:
    about = {"kind": key.kind, "namespace": key.namespace, "object": key.name}
    return about | ({"uid": uid} if uid else {})
