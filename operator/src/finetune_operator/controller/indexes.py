"""The indexes of the cache: which values an object is found by. No I/O."""

from collections.abc import Iterator

from finetune_api.meta import JOB_LABEL, SERVER_LABEL

from finetune_operator.controller.cache import Indexers
from finetune_operator.job.quota import is_active, is_unfinished, quota_request_of
from finetune_operator.kube.kinds import OWNERS, Key, Manifest, label_of

BY_OWNER = "owner"
"""Jobs and pods, by the key of the FineTuneJob or ModelServer that they belong to."""
BY_SERVER = "server"
"""FineTuneJobs, by namespace and name of their ModelServer."""
BY_PARENT = "parent"
"""FineTuneJobs, by namespace and name of the job whose result they start from."""
ACTIVE = "active"
"""FineTuneJobs that use quota of active jobs, by namespace."""
WAITING = "waiting"
"""FineTuneJobs that wait for quota, by namespace and resource."""
UNFINISHED = "unfinished"
"""Jobs and pods of stages that hold what they request, by namespace."""
_JOB_SCHEME = "finetunejob://"


def owners_of(manifest: Manifest) -> set[Key]:
    """Return the FineTuneJob and the ModelServer that an object belongs to, by its labels and its owner references."""
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


def server_of(job: Manifest) -> str | None:
    """Return the name of the ModelServer that a FineTuneJob names or creates; None if it has no serving."""
    serving = job.get("spec", {}).get("serving")
    if not isinstance(serving, dict):
        return None
    return str(serving.get("server") or job["metadata"]["name"])


def quota_terms(manifest: Manifest) -> set[tuple[str, ...]]:
    """Return the indexes and values of an object that quota decisions depend on."""
    indexes = _QUOTA_INDEXERS.get(manifest["kind"], {}).items()
    return {(index, *values) for index, function in indexes for values in function(manifest)}


def _by_server(job: Manifest) -> Iterator[tuple[str, ...]]:
    server = server_of(job)
    if server:
        yield job["metadata"]["namespace"], server


def _by_parent(job: Manifest) -> Iterator[tuple[str, ...]]:
    uri = (job.get("spec", {}).get("model") or {}).get("uri")
    if isinstance(uri, str) and uri.startswith(_JOB_SCHEME) and uri != _JOB_SCHEME:
        yield job["metadata"]["namespace"], uri.removeprefix(_JOB_SCHEME)


def _active(job: Manifest) -> Iterator[tuple[str, ...]]:
    if is_active(job):
        yield (job["metadata"]["namespace"],)


def _waiting(job: Manifest) -> Iterator[tuple[str, ...]]:
    for resource, amount in quota_request_of(job).items():
        if amount:
            yield job["metadata"]["namespace"], resource


def _unfinished(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    if is_unfinished(manifest):
        yield (manifest["metadata"]["namespace"],)


_OF_STAGES = {BY_OWNER: owners_of, UNFINISHED: _unfinished}
INDEXERS: Indexers = {
    "FineTuneJob": {BY_SERVER: _by_server, BY_PARENT: _by_parent, ACTIVE: _active, WAITING: _waiting},
    "Job": _OF_STAGES,
    "Pod": _OF_STAGES,
}
"""The indexes of every kind that has some."""
_QUOTA_INDEXERS: Indexers = {
    kind: {index: function for index, function in indexes.items() if index in (ACTIVE, WAITING, UNFINISHED)}
    for kind, indexes in INDEXERS.items()
}
