"""Creates, updates, patches and deletes children, and puts the responses into the cache."""

from dataclasses import dataclass

from finetune_api.conditions import Reason

from finetune_operator.controller.cache import Cache
from finetune_operator.controller.triggers import keys_to_reconcile, next_in_queue
from finetune_operator.kube.client import ApiError, KubeClient
from finetune_operator.kube.kinds import JOB, OWNED_LABEL, POD, Key, Manifest, controller_uid, key_of, kind_of, label_of
from finetune_operator.kube.workqueue import WorkQueue
from finetune_operator.manifests.drift import CREATE_ONLY, add_last_applied_hash, build_update, is_up_to_date
from finetune_operator.state.plan import REQUEUE_SOON_SECONDS, Deletion

PERMANENT_ERRORS = {400, 403, 404, 422}
"""HTTP statuses of requests that the API server would refuse again."""


@dataclass
class Applier:
    """Writes the children of FineTuneJobs and ModelServers; the reconciler writes the owners' status."""

    client: KubeClient
    cache: Cache
    queue: WorkQueue

    async def apply(self, owner: Manifest, children: tuple[Manifest, ...]) -> tuple[bool, tuple[Reason, str] | None]:
        """Apply children; they count for the limits of their namespace at once.

        Returns:
            Whether any child was created; and reason and message if one was refused.
        """
        with self.cache.assume(children):
            created, refusal = await self._apply_all(children)
        if refusal:
            for key in next_in_queue(self.cache, owner["metadata"]["namespace"]):
                self.queue.add(key)
        return created, refusal

    async def _apply_all(self, children: tuple[Manifest, ...]) -> tuple[bool, tuple[Reason, str] | None]:
        """Create the missing children and update those that differ."""
        created = False
        for child in children:
            key = key_of(child)
            try:
                live = self.cache.get(key) or await self._create(child)
                if live is None:
                    created = True
                    continue
                if not _has_same_owner(live, child):
                    message = f"{key.kind} {key.name} already exists and has another owner: delete or rename it"
                    return created, (Reason.CONFLICT, message)
                if key.kind not in CREATE_ONLY and not is_up_to_date(child, live):
                    self.update_cache(await self.client.update(build_update(child, live)))
            except ApiError as error:
                if error.code in PERMANENT_ERRORS:
                    return created, (Reason.CREATE_REFUSED, f"{key.kind} {key.name}: {error.message}")
                raise
        return created, None

    async def _create(self, child: Manifest) -> Manifest | None:
        """Create a child; return the object that already has its name, if there is one."""
        try:
            self.update_cache(await self.client.create(add_last_applied_hash(child)))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        else:
            return None
        key = key_of(child)
        existing = await self.client.get(kind_of(child), key.namespace, key.name)
        if existing is None:
            raise ApiError(409, f"{key.kind} {key.name} existed and was deleted meanwhile", "AlreadyExists")
        if key.kind == JOB.name and _has_same_owner(existing, child):
            return await self.restore_labels(existing, child["metadata"]["labels"])
        if _has_same_owner(existing, child):
            # A claim that a user created for all jobs of the namespace. Objects of other owners are not cached, so that
            # the next reconciliation finds out when they are gone.
            self.update_cache(existing)
        return existing

    async def restore_labels(self, manifest: Manifest, labels: dict[str, str]) -> Manifest:
        """Set labels that the watch and the lookup of an object need and that were removed; return the object."""
        return await self.patch(manifest, {"metadata": {"labels": labels}})

    async def patch(self, manifest: Manifest, body: Manifest) -> Manifest:
        """Apply a merge patch to an object; return the patched object."""
        key = key_of(manifest)
        patched = await self.client.patch(kind_of(manifest), key.namespace, key.name, body)
        self.update_cache(patched)
        return patched

    async def delete(self, key: Key, deletions: tuple[Deletion, ...]) -> None:
        """Delete objects; if one changed meanwhile, reconcile its owner `key` again instead."""
        for deletion in deletions:
            try:
                deleted = await self.client.delete(
                    deletion.kind, key.namespace, deletion.name, deletion.uid, deletion.version
                )
                if deleted["kind"] == deletion.kind.name:
                    self.update_cache(deleted)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
                self.queue.add_after(key, REQUEUE_SOON_SECONDS)

    async def annotate_pod(self, namespace: str, pod: str, annotations: dict[str, str]) -> None:
        """Annotate a pod if it still exists."""
        try:
            body = {"metadata": {"annotations": annotations}}
            self.update_cache(await self.client.patch(POD, namespace, pod, body))
        except ApiError as error:
            if error.code != 404:
                raise

    def update_cache(self, manifest: Manifest) -> None:
        """Cache the response to a write and queue what it triggers: the watch will report nothing newer."""
        change = self.cache.put(manifest)
        for key in keys_to_reconcile(self.cache, change) if change else ():
            self.queue.add(key)


def _has_same_owner(live: Manifest, child: Manifest) -> bool:
    """Return whether an existing object is the wanted child, not another owner's object of the same name."""
    owner = controller_uid(child)
    if owner is None:
        # Shared by all jobs of a namespace: a claim may be anyone's, a policy that we update must be the operator's.
        return child["kind"] in CREATE_ONLY or label_of(live, OWNED_LABEL) is not None
    return controller_uid(live) == owner
