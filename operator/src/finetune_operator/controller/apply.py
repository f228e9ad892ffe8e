"""Makes, mends, labels and deletes what belongs to an object, and keeps the answers in the store."""

from dataclasses import dataclass

from finetune_api.conditions import Reason

from finetune_operator.controller.cache import Store, concerned, next_in_line
from finetune_operator.kube.client import ApiError, Cluster
from finetune_operator.kube.kinds import JOB, OWNED_LABEL, POD, Key, Manifest, controller_uid, key_of, kind_of, label_of
from finetune_operator.kube.workqueue import WorkQueue
from finetune_operator.manifests.drift import MADE_ONCE, build_update, is_as_wanted, seal
from finetune_operator.state.plan import REQUEUE_SOON_SECONDS, Deletion

REFUSALS = {400, 403, 404, 422}
"""The API server's way of saying that the same request would be refused again."""


@dataclass
class Maker:
    """Writes to what belongs to FineTuneJobs and ModelServers; their own status is the reconciler's."""

    cluster: Cluster
    store: Store
    queue: WorkQueue

    async def make(self, owner: Manifest, children: tuple[Manifest, ...]) -> tuple[bool, tuple[Reason, str] | None]:
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
                    self.remember(await self.cluster.update(build_update(child, known)))
            except ApiError as error:
                if error.code in REFUSALS:
                    return made, (Reason.CREATE_REFUSED, f"{key.kind} {key.name}: {error.message}")
                raise
        return made, None

    async def _create(self, child: Manifest) -> Manifest | None:
        """Create a child; return the object that has its name already, where there is one."""
        try:
            self.remember(await self.cluster.create(seal(child)))
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
            return await self.label(found, child["metadata"]["labels"])
        if _belongs(found, child):
            # A claim that somebody else made for all jobs of the namespace; others are asked for again until they go.
            self.remember(found)
        return found

    async def label(self, found: Manifest, labels: dict[str, str]) -> Manifest:
        """Give an object back the labels by which it is watched, which somebody took away."""
        return await self.merge(found, {"metadata": {"labels": labels}})

    async def merge(self, known: Manifest, body: Manifest) -> Manifest:
        """Change a part of an object; return it as it is now."""
        key = key_of(known)
        merged = await self.cluster.merge(kind_of(known), key.namespace, key.name, body)
        self.remember(merged)
        return merged

    async def delete(self, key: Key, deletions: tuple[Deletion, ...]) -> None:
        """Delete what should go; about what changed meanwhile it is decided again."""
        for one in deletions:
            try:
                going = await self.cluster.delete(one.kind, key.namespace, one.name, one.uid, one.version)
                if going["kind"] == one.kind.name:
                    self.remember(going)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
                self.queue.add_after(key, REQUEUE_SOON_SECONDS)

    async def annotate(self, namespace: str, pod: str, annotations: dict[str, str]) -> None:
        """Annotate a pod, if it still is there."""
        try:
            body = {"metadata": {"annotations": annotations}}
            self.remember(await self.cluster.merge(POD, namespace, pod, body))
        except ApiError as error:
            if error.code != 404:
                raise

    def remember(self, manifest: Manifest) -> None:
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
