"""The operator's picture of the cluster: the newest version of every object that it watches.

Filled by the feeds, by the audit, and by the answers to the operator's own writes. Knows no network.
"""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from finetune_api.conditions import ConditionType
from finetune_api.meta import JOB_LABEL, SERVER_LABEL

from finetune_operator.controller.trim import keep
from finetune_operator.job.quota import (
    QUOTA_RESOURCES,
    QuotaResource,
    first_in_queue,
    is_active,
    is_unfinished,
    quota_request_of,
)
from finetune_operator.kube.kinds import OWNERS, Key, Manifest, key_of, label_of

_SERVER, _EARLIER, _AT_WORK, _WAITING, _UNENDED = "server", "finetunejob://", "at work", "waiting", "unended"


class Change(NamedTuple):
    """An object that is new, changed or gone."""

    manifest: Manifest
    """As it is now, or was at its end."""
    before: Manifest | None = None
    """What was known under its name before, itself or one that it replaces; None where it is new or gone."""


class Store:
    """Objects by key, and keys by what is looked for: nothing here takes longer the more objects there are."""

    def __init__(self) -> None:
        """Begin empty."""
        self._objects: dict[Key, Manifest] = {}
        self._found: defaultdict[tuple[str, ...], set[Key]] = defaultdict(set)
        self._deleted: dict[str, int] = {}
        self._expected: dict[Key, Manifest] = {}

    def get(self, key: Key) -> Manifest | None:
        """Return an object, or None."""
        return self._objects.get(key)

    def put(self, manifest: Manifest) -> Change | None:
        """Keep an object unless it is known in this version or a newer one; return what changed."""
        key, metadata = key_of(manifest), manifest["metadata"]
        version = int(metadata["resourceVersion"])
        known = self._objects.get(key)
        if known is not None and int(known["metadata"]["resourceVersion"]) >= version:
            return None
        if self._deleted.get(metadata["uid"], -1) >= version:
            return None
        self._forget(key)
        kept = self._objects[key] = keep(manifest)
        for term in _terms(kept):
            self._found[term].add(key)
        return Change(kept, known)

    def remove(self, manifest: Manifest) -> Change | None:
        """Drop a deleted object, unless another of its name is known by now; return what changed."""
        key, metadata = key_of(manifest), manifest["metadata"]
        self._deleted[metadata["uid"]] = int(metadata["resourceVersion"])
        known = self._objects.get(key)
        if known is None or known["metadata"]["uid"] != metadata["uid"]:
            return None
        self._forget(key)
        return Change(manifest)

    def uids(self, kind: str) -> set[str]:
        """Return the uids of a kind's objects."""
        return {self._objects[key]["metadata"]["uid"] for key in self.keys(kind)}

    def retain(self, kind: str, listed: Container[str], known: Container[str]) -> list[Change]:
        """Drop the objects of a kind that a complete list does not have; return what that changed.

        Args:
            kind: the kind that was listed.
            listed: the uids of all objects that there are.
            known: the uids that were known when the list was asked for; what came later may be newer than the list.
        """
        dropped = []
        for key in self.keys(kind):
            uid = self._objects[key]["metadata"]["uid"]
            if uid in known and uid not in listed:
                dropped.append(Change(self._objects[key]))
                self._forget(key)
        return dropped

    def is_behind(self, manifest: Manifest) -> bool:
        """Tell whether an object is not known in this version or a newer one, of what its metadata says."""
        metadata = manifest["metadata"]
        known = self._objects.get(key_of(manifest))
        version = int(metadata["resourceVersion"])
        if self._deleted.get(metadata["uid"], -1) >= version:
            return False
        return known is None or int(known["metadata"]["resourceVersion"]) < version

    def forget_deletions(self, version: int) -> None:
        """Forget which objects were deleted before a version: nothing older will be heard of them."""
        self._deleted = {uid: seen for uid, seen in self._deleted.items() if seen > version}

    def is_new(self, key: Key) -> bool:
        """Tell whether an object is a FineTuneJob that nothing was made for and nothing was said of yet."""
        manifest = self._objects.get(key) if key.kind == "FineTuneJob" else None
        return manifest is not None and not manifest.get("status") and ("Job", *key) not in self._found

    def keys(self, kind: str) -> list[Key]:
        """Return the keys of a kind."""
        return list(self._found[kind,])

    def children(self, kind: str, owner: Key) -> list[Manifest]:
        """Return the objects of a kind whose labels name the owner."""
        return self._find(kind, *owner)

    def jobs_of(self, namespace: str, server: str) -> list[Manifest]:
        """Return the FineTuneJobs that name a ModelServer or make it."""
        return self._find(_SERVER, namespace, server)

    def followers(self, job: Key) -> list[Manifest]:
        """Return the FineTuneJobs that begin with the result of this one."""
        return self._find(_EARLIER, job.namespace, job.name)

    def at_work(self, namespace: str) -> list[Manifest]:
        """Return the FineTuneJobs of a namespace that are at work, by their status."""
        return self._find(_AT_WORK, namespace)

    def waiting(self, namespace: str, room: QuotaResource) -> Iterator[Manifest]:
        """Return the FineTuneJobs of a namespace that wait for a kind of room under its limits."""
        return (self._objects[key] for key in self._found.get((_WAITING, namespace, room), ()))

    def unended(self, kind: str, namespace: str) -> list[Manifest]:
        """Return the Jobs or pods of stages in a namespace that have not ended, also those that are just being made."""
        found = {key: self._objects[key] for key in self._found.get((_UNENDED, kind, namespace), ())}
        new = {
            key: one for key, one in self._expected.items() if key[:2] == (kind, namespace) and self.get(key) is None
        }
        return list((new | found).values())

    @contextmanager
    def expecting(self, manifests: Iterable[Manifest]) -> Iterator[None]:
        """Count Jobs as if they were there while they are made: other decisions fall meanwhile."""
        expected = {key_of(one): one for one in manifests if one["kind"] == "Job"}
        self._expected |= expected
        try:
            yield
        finally:
            for key in expected:
                self._expected.pop(key, None)

    def _find(self, *term: str) -> list[Manifest]:
        return [self._objects[key] for key in sorted(self._found.get(term, ()))]

    def _forget(self, key: Key) -> None:
        known = self._objects.pop(key, None)
        if known is None:
            return
        for term in _terms(known):
            self._found[term].discard(key)
            if not self._found[term]:
                del self._found[term]


def _terms(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    """Say under what an object is found."""
    key = key_of(manifest)
    yield (key.kind,)
    for owner in owners_of(manifest):
        yield key.kind, *owner
    yield from _shares(manifest)
    if key.kind == "FineTuneJob":
        server, earlier = server_of(manifest), _earlier_of(manifest)
        if server:
            yield _SERVER, key.namespace, server
        if earlier:
            yield _EARLIER, key.namespace, earlier


def _shares(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    """Say what an object holds of what its namespace may have, and what it waits for."""
    key = key_of(manifest)
    if key.kind in ("Job", "Pod") and is_unfinished(manifest):
        yield _UNENDED, key.kind, key.namespace
    if key.kind == "FineTuneJob":
        if is_active(manifest):
            yield _AT_WORK, key.namespace
        for room, number in quota_request_of(manifest).items():
            if number:
                yield _WAITING, key.namespace, room


def owners_of(manifest: Manifest) -> set[Key]:
    """Name the FineTuneJob and the ModelServer that an object belongs to: by its labels, and by who controls it."""
    namespace = manifest["metadata"]["namespace"]
    owners = set()
    for label, kind in ((JOB_LABEL, "FineTuneJob"), (SERVER_LABEL, "ModelServer")):
        name = label_of(manifest, label)
        if name is not None:
            owners.add(Key(kind, namespace, name))
    for owner in manifest["metadata"].get("ownerReferences", ()):
        if owner.get("kind") in OWNERS:
            owners.add(Key(owner["kind"], namespace, owner["name"]))
    return owners


def concerned(store: Store, change: Change) -> list[Key]:
    """Return which FineTuneJobs and ModelServers must look again: servers first, since their users wait."""
    keys = _concerned(store, *change)
    if _makes_room(store, *change):
        keys |= next_in_line(store, change.manifest["metadata"]["namespace"])
    return sorted(keys, key=lambda key: (key.kind != "ModelServer", key))


def _concerned(store: Store, manifest: Manifest, before: Manifest | None) -> set[Key]:
    key = key_of(manifest)
    match key.kind:
        case "FineTuneJob" if before and _shown(before) == _shown(manifest):
            return {key}
        case "FineTuneJob":
            rivals = _rivals(store, manifest) | (_rivals(store, before) if before else set())
            return {key, *rivals, *map(key_of, store.followers(key))}
        case "ModelServer":
            return {key, *map(key_of, store.jobs_of(key.namespace, key.name))}
    return owners_of(manifest) | (owners_of(before) if before else set())


def next_in_line(store: Store, namespace: str) -> set[Key]:
    """Return the FineTuneJobs that may begin when there is room in their namespace again: for each kind the first."""
    turns = (first_in_queue(store.waiting(namespace, room)) for room in QUOTA_RESOURCES)
    return {Key("FineTuneJob", namespace, turn[2]) for turn in turns if turn}


def _makes_room(store: Store, manifest: Manifest, before: Manifest | None) -> bool:
    """Tell whether something was given back, or is waited for no more."""
    if store.get(key_of(manifest)) is None:
        return True
    return before is not None and not set(_shares(before)) <= set(_shares(manifest))


def _shown(job: Manifest) -> Manifest:
    """Return what other jobs and servers look at: which job it is, and what may change of it."""
    status = job.get("status") or {}
    telling = (ConditionType.EVALUATED, ConditionType.FAILED)
    return {
        "conditions": [one for one in status.get("conditions", []) if one["type"] in telling],
        "artifact": status.get("artifact"),
        "evaluationServer": status.get("evaluationServer"),
        "serving": job.get("spec", {}).get("serving"),
        "deletionTimestamp": job["metadata"].get("deletionTimestamp"),
        "uid": job["metadata"]["uid"],
    }


def server_of(job: Manifest) -> str | None:
    """Return the name of the ModelServer that a FineTuneJob names or makes; None where it has no serving."""
    serving = job.get("spec", {}).get("serving")
    if not isinstance(serving, dict):
        return None
    return str(serving.get("server") or job["metadata"]["name"])


def _earlier_of(job: Manifest) -> str | None:
    """Return the name of the FineTuneJob whose result a FineTuneJob begins with; None where it names a base model."""
    uri = (job.get("spec", {}).get("model") or {}).get("uri")
    return uri.removeprefix(_EARLIER) if isinstance(uri, str) and uri.startswith(_EARLIER) else None


def _rivals(store: Store, job: Manifest) -> set[Key]:
    """Return the job's server, and the jobs that serve under the same name there."""
    server, namespace = server_of(job), job["metadata"]["namespace"]
    if server is None:
        return set()
    name = job["spec"]["serving"].get("modelName")
    others = store.jobs_of(namespace, server)
    same = {key_of(other) for other in others if other["spec"]["serving"].get("modelName") == name}
    return same | {Key("ModelServer", namespace, server)}
