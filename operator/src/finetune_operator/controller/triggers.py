"""Which FineTuneJobs and ModelServers a change of an object triggers (controller-runtime: map functions, predicates).

No I/O.
"""

from finetune_api.conditions import ConditionType

from finetune_operator.controller.cache import Cache, Change
from finetune_operator.controller.indexes import (
    BY_OWNER,
    BY_PARENT,
    BY_SERVER,
    WAITING,
    owners_of,
    quota_terms,
    server_of,
)
from finetune_operator.job.quota import QUOTA_RESOURCES, first_in_queue
from finetune_operator.kube.kinds import Key, Manifest, key_of


def keys_to_reconcile(cache: Cache, change: Change) -> list[Key]:
    """Return the objects to reconcile after a change: servers first, since their users wait."""
    keys = _affected(cache, *change)
    if _frees_quota(cache, *change):
        keys |= next_in_queue(cache, change.manifest["metadata"]["namespace"])
    return sorted(keys, key=lambda key: (key.kind != "ModelServer", key))


def next_in_queue(cache: Cache, namespace: str) -> set[Key]:
    """Return the FineTuneJobs that may start when quota of a namespace becomes free: for each resource the first."""
    positions = (
        first_in_queue(cache.by_index("FineTuneJob", WAITING, namespace, resource)) for resource in QUOTA_RESOURCES
    )
    return {Key("FineTuneJob", namespace, position[2]) for position in positions if position}


def is_new(cache: Cache, key: Key) -> bool:
    """Return whether a key is that of a FineTuneJob that has neither a status nor a Job yet."""
    manifest = cache.get(key) if key.kind == "FineTuneJob" else None
    return manifest is not None and not manifest.get("status") and not any(cache.by_index("Job", BY_OWNER, *key))


def _affected(cache: Cache, manifest: Manifest, before: Manifest | None) -> set[Key]:
    key = key_of(manifest)
    match key.kind:
        case "FineTuneJob" if before and _shared_state(before) == _shared_state(manifest):
            return {key}
        case "FineTuneJob":
            peers = _serving_peers(cache, manifest) | (_serving_peers(cache, before) if before else set())
            return {key, *peers, *map(key_of, cache.by_index("FineTuneJob", BY_PARENT, key.namespace, key.name))}
        case "ModelServer":
            return {key, *map(key_of, cache.by_index("FineTuneJob", BY_SERVER, key.namespace, key.name))}
    return owners_of(manifest) | (owners_of(before) if before else set())


def _frees_quota(cache: Cache, manifest: Manifest, before: Manifest | None) -> bool:
    """Return whether an object released quota, or no longer waits for it."""
    if cache.get(key_of(manifest)) is None:
        return True
    return before is not None and not quota_terms(before) <= quota_terms(manifest)


def _shared_state(job: Manifest) -> Manifest:
    """Return the parts of a FineTuneJob that decisions about other jobs and servers read."""
    status = job.get("status") or {}
    types = (ConditionType.EVALUATED, ConditionType.FAILED)
    return {
        "conditions": [condition for condition in status.get("conditions", []) if condition["type"] in types],
        "artifact": status.get("artifact"),
        "evaluationServer": status.get("evaluationServer"),
        "serving": job.get("spec", {}).get("serving"),
        "deletionTimestamp": job["metadata"].get("deletionTimestamp"),
        "uid": job["metadata"]["uid"],
    }


def _serving_peers(cache: Cache, job: Manifest) -> set[Key]:
    """Return the job's ModelServer, and the jobs that serve under the same model name there."""
    server, namespace = server_of(job), job["metadata"]["namespace"]
    if server is None:
        return set()
    name = job["spec"]["serving"].get("modelName")
    jobs = cache.by_index("FineTuneJob", BY_SERVER, namespace, server)
    same = {key_of(other) for other in jobs if other["spec"]["serving"].get("modelName") == name}
    return same | {Key("ModelServer", namespace, server)}
