"""The operator's picture of the cluster: the newest version of every object that it watches.

Filled by the feeds, by the audit, and by the answers to the operator's own writes. Knows no network.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from finetune_api.meta import JOB_LABEL, SERVER_LABEL

from finetune_operator.kinds import Key, Manifest, key_of, label_of


class Store:
    """Objects by key, and keys by the owner that their labels name."""

    def __init__(self) -> None:
        """Begin empty."""
        self._objects: dict[Key, Manifest] = {}
        self._children: defaultdict[tuple[str, str, str], set[Key]] = defaultdict(set)
        self._by_namespace: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)
        self._deleted: dict[str, int] = {}

    def get(self, key: Key) -> Manifest | None:
        """Return an object, or None."""
        return self._objects.get(key)

    def put(self, manifest: Manifest) -> bool:
        """Keep an object unless a newer version is known; tell whether it was new to the store."""
        key, metadata = key_of(manifest), manifest["metadata"]
        version = int(metadata["resourceVersion"])
        known = self._objects.get(key)
        if known is not None and int(known["metadata"]["resourceVersion"]) >= version:
            return False
        if self._deleted.get(metadata["uid"], -1) >= version:
            return False
        self._forget(key)
        metadata.pop("managedFields", None)
        self._objects[key] = manifest
        self._by_namespace[key.kind, key.namespace].add(key)
        for owner in owners_of(manifest):
            self._children[owner].add(key)
        return True

    def remove(self, manifest: Manifest) -> bool:
        """Drop a deleted object, unless another of its name is known by now."""
        key, metadata = key_of(manifest), manifest["metadata"]
        self._deleted[metadata["uid"]] = int(metadata["resourceVersion"])
        known = self._objects.get(key)
        if known is None or known["metadata"]["uid"] != metadata["uid"]:
            return False
        self._forget(key)
        return True

    def replace(self, kind: str, listed: Iterable[Manifest], keys: Iterable[Key], version: int) -> list[Manifest]:
        """Take over a complete list; return what it changed.

        Args:
            kind: the kind that was listed.
            listed: every object that there is.
            keys: those that the store knew, of the listed selection, when the list began.
            version: the list's resource version; objects written after it are left alone.
        """
        manifests = list(listed)
        changed = [manifest for manifest in manifests if self.put(manifest)]
        present = {key_of(manifest) for manifest in manifests}
        for key in keys:
            known = self._objects.get(key)
            if key.kind != kind or key in present or known is None:
                continue
            if int(known["metadata"]["resourceVersion"]) <= version:
                self._forget(key)
                changed.append(known)
        self._deleted = {uid: seen for uid, seen in self._deleted.items() if seen > version}
        return changed

    def keys(self, kind: str, namespace: str | None = None) -> list[Key]:
        """Return the keys of a kind."""
        if namespace is not None:
            return sorted(self._by_namespace[kind, namespace])
        return [key for key in self._objects if key.kind == kind]

    def objects(self, kind: str, namespace: str) -> list[Manifest]:
        """Return the objects of a kind in a namespace."""
        return [self._objects[key] for key in self.keys(kind, namespace)]

    def children(self, kind: str, owner: Key) -> list[Manifest]:
        """Return the objects of a kind whose labels name the owner."""
        keys = self._children.get((owner.kind, owner.namespace, owner.name), set())
        return [self._objects[key] for key in sorted(keys) if key.kind == kind]

    def _forget(self, key: Key) -> None:
        known = self._objects.pop(key, None)
        if known is None:
            return
        self._by_namespace[key.kind, key.namespace].discard(key)
        for owner in owners_of(known):
            self._children[owner].discard(key)


def owners_of(manifest: Manifest) -> Iterator[Key]:
    """Name the FineTuneJob and the ModelServer that an object's labels name."""
    namespace = manifest["metadata"]["namespace"]
    for label, kind in ((JOB_LABEL, "FineTuneJob"), (SERVER_LABEL, "ModelServer")):
        name = label_of(manifest, label)
        if name is not None:
            yield Key(kind, namespace, name)


def concerned(store: Store, manifest: Manifest) -> set[Key]:
    """Return which FineTuneJobs and ModelServers must look again when this object changed."""
    key = key_of(manifest)
    spec = manifest.get("spec", {})
    match key.kind:
        case "FineTuneJob":
            return {key, *_rivals(store, key, spec.get("serving") or {}), *_followers(store, key)}
        case "ModelServer":
            jobs = store.objects("FineTuneJob", key.namespace)
            return {key} | {key_of(job) for job in jobs if server_of(job) == key.name}
    return set(owners_of(manifest))


def server_of(job: Manifest) -> str | None:
    """Return the name of the ModelServer that a FineTuneJob names or makes; None where it has no serving."""
    serving = job.get("spec", {}).get("serving")
    if not isinstance(serving, dict):
        return None
    return str(serving.get("server") or job["metadata"]["name"])


def _followers(store: Store, key: Key) -> set[Key]:
    """Return the jobs that begin with the result of this one."""
    uri = f"finetunejob://{key.name}"
    jobs = store.objects("FineTuneJob", key.namespace)
    return {key_of(job) for job in jobs if (job.get("spec", {}).get("model") or {}).get("uri") == uri}


def _rivals(store: Store, key: Key, serving: Manifest) -> set[Key]:
    """Return the job's server, and the jobs that serve under the same name there."""
    job = store.get(key) or {"metadata": {"name": key.name}, "spec": {"serving": serving or None}}
    server = server_of(job)
    if server is None:
        return set()
    same = {
        key_of(other)
        for other in store.objects("FineTuneJob", key.namespace)
        if server_of(other) == server and other["spec"]["serving"].get("modelName") == serving.get("modelName")
    }
    return same | {Key("ModelServer", key.namespace, server)}
