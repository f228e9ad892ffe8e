"""Brings one object a step further: observe, plan, apply, status, events. Decisions are made in the plans."""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from finetune_api.conditions import ConditionType, Reason

from finetune_operator.children import MADE_ONCE, build_update, is_as_wanted, mend_job, seal
from finetune_operator.cluster import ApiError, Cluster
from finetune_operator.draft import AT_ONCE, STAGE_CONDITIONS, Deletion, Plan
from finetune_operator.events import build_event
from finetune_operator.kinds import JOB, OWNED_LABEL, POD, Key, Manifest, controller_uid, key_of, kind_of, label_of
from finetune_operator.leader import LeadershipLostError
from finetune_operator.manifests.names import stage_job_name, stage_labels
from finetune_operator.metrics import (
    JOBS,
    QUEUE_DEPTH,
    RECONCILE_ERRORS,
    RECONCILE_SECONDS,
    STAGE_SECONDS,
)
from finetune_operator.observe import (
    Attempt,
    JobView,
    attempt_of,
    view_job,
    view_server,
)
from finetune_operator.observer import Observer
from finetune_operator.plan_job import plan_job
from finetune_operator.plan_server import ServerPlan, plan_server
from finetune_operator.settings import Settings
from finetune_operator.status import Conditions, Event
from finetune_operator.store import Store, concerned, next_in_line
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
            # A look that finds nothing to do waits for nothing: ten thousand of them would let no probe be answered.
            await asyncio.sleep(0)

    async def reconcile(self, key: Key) -> None:
        """Bring one FineTuneJob or ModelServer a step further."""
        manifest = self.store.get(key)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            return
        now = datetime.now(UTC).replace(microsecond=0)
        plan = await self._decide(manifest, now)
        again_after = plan.again_after
        made, refused = await self._make(manifest, plan.apply)
        if made and not manifest.get("status") and len(self.queue):
            # Those who wait get their first Job before this one gets its first word: what was made brings it back.
            return
        status, events = plan.status, list(plan.events)
        if refused:
            status, events = _refuse(manifest, refused, now)
            again_after = _REFUSED_AGAIN_SECONDS
        elif isinstance(plan, ServerPlan):
            for pod, annotations in plan.annotate:
                await self._annotate(key.namespace, pod, annotations)
        if status != manifest.get("status"):
            await self._tell(manifest, status, events, now)
        if isinstance(plan, Plan) and not refused:
            await self._delete_all(key, plan.delete)
        if again_after is not None:
            self.queue.add_after(key, again_after)

    async def _decide(self, manifest: Manifest, now: datetime) -> Plan | ServerPlan:
        """Look at everything that bears on an object, and decide about it."""
        if manifest["kind"] == "ModelServer":
            return plan_server(view_server(manifest), await self.observer.see_server(manifest), self.settings, now)
        job = view_job(manifest)
        await self._keep_jobs(job)
        await self._find_lost(job)
        await self._find_unheard(job)
        return plan_job(job, await self.observer.see_job(job), self.settings, now)

    async def _tell(self, manifest: Manifest, status: Manifest, events: list[Event], now: datetime) -> None:
        """Write a status, and only then what it says as events."""
        key = key_of(manifest)
        written = await self._write_status(manifest, status)
        if key.kind == "FineTuneJob":
            _observe_stages(manifest, written, self.observer.attempts(key))
        for event in events:
            await self.cluster.create_event(build_event(manifest, event, self.instance, now))
            _LOG.info("%s: %s", event.reason, event.message, extra=_about(key, manifest))

    async def _make(self, owner: Manifest, children: tuple[Manifest, ...]) -> tuple[bool, tuple[Reason, str] | None]:
        """Apply children, which count for the limits of their namespace at once.

        Returns:
            Whether any was made, and why one was refused.
        """
        with self.store.expecting(children):
            made, refused = await self._apply_all(children)
        for waiting in next_in_line(self.store, owner["metadata"]["namespace"]) if refused else ():
            self.queue.add(waiting)
        return made, refused

    async def _apply_all(self, children: tuple[Manifest, ...]) -> tuple[bool, tuple[Reason, str] | None]:
        """Make what is missing and mend what is not as wanted."""
        made = False
        for child in children:
            key = key_of(child)
            try:
                known = self.store.get(key) or await self._create(child)
                if known is None:
                    made = True
                    continue
                if not _belongs(known, child):
                    return made, (Reason.CONFLICT, f"{key.kind} {key.name} exists and belongs to someone else")
                if key.kind not in MADE_ONCE and not is_as_wanted(child, known):
                    self._remember(await self.cluster.update(build_update(child, known)))
            except ApiError as error:
                if error.code in _REFUSALS:
                    return made, (Reason.CREATE_REFUSED, f"{key.kind} {key.name}: {error.message}")
                raise
        return made, None

    async def _keep_jobs(self, job: JobView) -> None:
        """Mend the Jobs of stages that somebody changed."""
        for child in self.store.children("Job", Key("FineTuneJob", job.namespace, job.name)):
            named = attempt_of(child)
            if named and controller_uid(child) == job.uid:
                mended = mend_job(stage_labels(job, *named), child)
                if mended:
                    await self._merge(child, mended)

    async def _find_lost(self, job: JobView) -> None:
        """Look for attempts that were begun and are not in the picture: one without its labels still runs."""
        known = {(one.stage, one.number) for one in self.observer.attempts(Key("FineTuneJob", job.namespace, job.name))}
        done = {one.type for one in job.status.conditions if one.status == "True"}
        for stage, condition in STAGE_CONDITIONS.items():
            number: int = getattr(job.status.attempts, stage.lower())
            if job.spec is None or not number or (stage, number) in known or done & {condition, ConditionType.FAILED}:
                continue
            found = await self.cluster.find(JOB, job.namespace, stage_job_name(job, stage, number))
            if found is not None and controller_uid(found) == job.uid:
                await self._label(found, stage_labels(job, stage, number))

    async def _find_unheard(self, job: JobView) -> None:
        """Look for the pods of an attempt that is over and whose pods are not known to have ended.

        One that was not heard of would be taken for one that is gone, and what it did would be done again.
        """
        attempts = self.observer.attempts(Key("FineTuneJob", job.namespace, job.name))
        last = {one.stage: one for one in sorted(attempts, key=lambda one: one.number)}
        done = {one.type for one in job.status.conditions if one.status == "True"}
        for stage, attempt in last.items():
            if (
                attempt.finished
                and not attempt.pods_ended
                and not done & {STAGE_CONDITIONS[stage], ConditionType.FAILED}
            ):
                for pod in await self.cluster.pods_of(job.namespace, attempt.name):
                    self._remember(pod)

    async def _create(self, child: Manifest) -> Manifest | None:
        """Create a child; return the object that has its name already, where there is one."""
        try:
            self._remember(await self.cluster.create(seal(child)))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        else:
            return None
        key = key_of(child)
        found = await self.cluster.find(kind_of(child), key.namespace, key.name)
        if found is None:
            raise ApiError(409, f"{key.kind} {key.name} existed a moment ago", "AlreadyExists")
        if key.kind == JOB.name and _belongs(found, child):
            return await self._label(found, child["metadata"]["labels"])
        if _belongs(found, child):
            # A claim that somebody else made for all jobs of the namespace; others are asked for again until they go.
            self._remember(found)
        return found

    async def _label(self, found: Manifest, labels: dict[str, str]) -> Manifest:
        """Give an object back the labels by which it is watched, which somebody took away."""
        return await self._merge(found, {"metadata": {"labels": labels}})

    async def _merge(self, known: Manifest, body: Manifest) -> Manifest:
        key = key_of(known)
        merged = await self.cluster.merge(kind_of(known), key.namespace, key.name, body)
        self._remember(merged)
        return merged

    async def _delete_all(self, key: Key, deletions: tuple[Deletion, ...]) -> None:
        """Delete what should go; about what changed meanwhile it is decided again."""
        for one in deletions:
            try:
                going = await self.cluster.delete(one.kind, key.namespace, one.name, one.uid, one.version)
                if going["kind"] == one.kind.name:
                    self._remember(going)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
                self.queue.add_after(key, AT_ONCE)

    async def _annotate(self, namespace: str, pod: str, annotations: dict[str, str]) -> None:
        try:
            body = {"metadata": {"annotations": annotations}}
            self._remember(await self.cluster.merge(POD, namespace, pod, body))
        except ApiError as error:
            if error.code != 404:
                raise

    async def _write_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Write a status for the version of the object that was looked at, and for no other."""
        metadata = {key: manifest["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        identity = {name: manifest[name] for name in ("apiVersion", "kind")}
        written = await self.cluster.update_status(identity | {"metadata": metadata, "status": status})
        self._remember(manifest | written)
        return written

    def _remember(self, manifest: Manifest) -> None:
        """Keep the answer to a write, and tell whom it concerns: the watch will bring nothing newer."""
        change = self.store.put(manifest)
        for key in concerned(self.store, change) if change else ():
            self.queue.add(key)


def _belongs(found: Manifest, wanted: Manifest) -> bool:
    """Tell whether an object is the child that is wanted, and not one of somebody else's that only has its name."""
    owner = controller_uid(wanted)
    if owner is None:
        # What all jobs of a namespace share: a claim may be anybody's, what is kept as wanted must be the operator's.
        return wanted["kind"] in MADE_ONCE or label_of(found, OWNED_LABEL) is not None
    return controller_uid(found) == owner


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
    # A job that was refused had room under its namespace's limits: nobody waits behind it.
    no_more = {"waiting_for": None} if manifest["kind"] == "FineTuneJob" else {}
    told = {"observed_generation": view.generation, "conditions": listed, "reason": reason}
    status = view.status.model_copy(update=told | no_more)
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
