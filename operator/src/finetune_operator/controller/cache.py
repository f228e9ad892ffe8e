"""The operator's cache of the cluster: the newest version of every watched object, with indexes. No I/O.

The watches, the resync and the responses to the operator's own writes fill it.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from finetune_operator.controller.trim import trim
from finetune_operator.kube.kinds import Key, Manifest, key_of

IndexFunction = Callable[[Manifest], Iterable[tuple[str, ...]]]
"""Returns the values under which an index lists an object."""
Indexers = Mapping[str, Mapping[str, IndexFunction]]
"""Index functions by kind and by the name of the index (client-go: Indexers)."""


class Change(NamedTuple):
    """An object that was added, updated or deleted."""

    manifest: Manifest
    """The current object, or its last state if it was deleted."""
    before: Manifest | None = None
    """The object that was cached under this key before, the same or a replaced one; None if added or deleted."""


class Cache:
    """Objects by key, and keys by index values: no lookup takes longer the more objects there are."""

    def __init__(self, indexers: Indexers) -> None:
        """Start empty; `indexers` say in which indexes the objects of a kind are."""
        self._indexers = indexers
        self._objects: dict[Key, Manifest] = {}
        self._index: defaultdict[tuple[str, ...], set[Key]] = defaultdict(set)
        self._tombstones: dict[str, int] = {}
        """Resource versions of deleted objects, by uid."""
        self._assumed: dict[Key, Manifest] = {}

    def get(self, key: Key) -> Manifest | None:
        """Return an object, or None."""
        return self._objects.get(key)

    def put(self, manifest: Manifest) -> Change | None:
        """Store an object unless this version or a newer one is known; return the change."""
        key, metadata = key_of(manifest), manifest["metadata"]
        version = int(metadata["resourceVersion"])
        known = self._objects.get(key)
        if known is not None and int(known["metadata"]["resourceVersion"]) >= version:
            return None
        if self._tombstones.get(metadata["uid"], -1) >= version:
            return None
        self._remove(key)
        trimmed = self._objects[key] = trim(manifest)
        for term in self._terms(key, trimmed):
            self._index[term].add(key)
        return Change(trimmed, known)

    def remove(self, manifest: Manifest) -> Change | None:
        """Remove a deleted object unless its name is already taken by another one; return the change."""
        key, metadata = key_of(manifest), manifest["metadata"]
        self._tombstones[metadata["uid"]] = int(metadata["resourceVersion"])
        known = self._objects.get(key)
        if known is None or known["metadata"]["uid"] != metadata["uid"]:
            return None
        self._remove(key)
        return Change(manifest)

    def uids(self, kind: str) -> set[str]:
        """Return the uids of a kind's objects."""
        return {self._objects[key]["metadata"]["uid"] for key in self.keys(kind)}

    def remove_unlisted(self, kind: str, listed: Container[str], known: Container[str]) -> list[Change]:
        """Remove the objects of a kind that are missing from a complete list; return the changes.

        Args:
            kind: the kind that was listed.
            listed: uids of all objects in the list.
            known: uids that were cached when the list was requested; later ones may be newer than the list.
        """
        removed = []
        for key in self.keys(kind):
            uid = self._objects[key]["metadata"]["uid"]
            if uid in known and uid not in listed:
                removed.append(Change(self._objects[key]))
                self._remove(key)
        return removed

    def is_outdated(self, manifest: Manifest) -> bool:
        """Return whether the cache lacks this version of an object and every newer one; reads the metadata only."""
        metadata = manifest["metadata"]
        known = self._objects.get(key_of(manifest))
        version = int(metadata["resourceVersion"])
        if self._tombstones.get(metadata["uid"], -1) >= version:
            return False
        return known is None or int(known["metadata"]["resourceVersion"]) < version

    def prune_tombstones(self, version: int) -> None:
        """Forget the deletions up to a resource version: no older event can arrive any more."""
        self._tombstones = {uid: deleted for uid, deleted in self._tombstones.items() if deleted > version}

    def keys(self, kind: str) -> list[Key]:
        """Return the keys of a kind."""
        return list(self._index[kind,])

    def by_index(self, kind: str, index: str, *values: str) -> Iterator[Manifest]:
        """Return the objects of a kind that an index lists under these values, in no particular order."""
        return (self._objects[key] for key in self._index.get((kind, index, *values), ()))

    def assumed(self, kind: str, namespace: str) -> Iterator[Manifest]:
        """Return the objects of a kind in a namespace that are being created and not cached yet."""
        return (
            manifest
            for key, manifest in self._assumed.items()
            if key[:2] == (kind, namespace) and key not in self._objects
        )

    @contextmanager
    def assume(self, manifests: Iterable[Manifest]) -> Iterator[None]:
        """Have `assumed` return these objects while the body creates them, for other workers' decisions."""
        assumed = {key_of(manifest): manifest for manifest in manifests}
        self._assumed |= assumed
        try:
            yield
        finally:
            for key in assumed:
                self._assumed.pop(key, None)

    def _terms(self, key: Key, manifest: Manifest) -> Iterator[tuple[str, ...]]:
        """Yield everything that an object is indexed by."""
        yield (key.kind,)
        for index, function in self._indexers.get(key.kind, {}).items():
            for values in function(manifest):
                yield (key.kind, index, *values)

    def _remove(self, key: Key) -> None:
        known = self._objects.pop(key, None)
        if known is None:
            return
        for term in self._terms(key, known):
            self._index[term].discard(key)
            if not self._index[term]:
                del self._index[term]
