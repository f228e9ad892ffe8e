"""Which FineTuneJobs and ModelServers a change triggers."""

from typing import Any

from finetune_operator.controller.cache import Cache, Change
from finetune_operator.controller.indexes import ACTIVE, BY_OWNER, INDEXERS
from finetune_operator.controller.triggers import is_new, keys_to_reconcile
from finetune_operator.controller.trim import trim
from finetune_operator.kube.kinds import Key
from unit.stored import KEY, stored_job, stored_stage, true
from unit.stored import served_job as job


def child(kind: str, name: str, version: int, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": str(version)}
    metadata["labels"] = {f"finetune.dev/{key}": value for key, value in labels.items()}  # type: ignore[assignment]
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


def test_a_child_triggers_the_owners_in_its_labels() -> None:
    cache = Cache(INDEXERS)
    pod = child("Pod", "p", 1, job="a", server="s")
    cache.put(pod)
    assert keys_to_reconcile(cache, Change(pod)) == [Key("ModelServer", "team", "s"), KEY]
    assert list(cache.by_index("Pod", BY_OWNER, *KEY)) == [trim(pod)]


def test_a_job_triggers_its_server_and_the_jobs_of_the_same_model_name() -> None:
    cache = Cache(INDEXERS)
    mine, other = job("a", modelName="bot", server="s"), job("b", uid="v", modelName="bot", server="s")
    cache.put(mine)
    cache.put(other)
    cache.put(job("c", uid="w", modelName="other", server="s"))
    assert keys_to_reconcile(cache, Change(mine)) == [
        Key("ModelServer", "team", "s"),
        KEY,
        Key("FineTuneJob", "team", "b"),
    ]


def test_a_job_triggers_the_jobs_that_start_from_its_result() -> None:
    cache = Cache(INDEXERS)
    child_job = job("b", uid="v")
    child_job["spec"]["model"] = {"uri": "finetunejob://a"}
    cache.put(child_job)
    assert keys_to_reconcile(cache, Change(job("a"))) == [KEY, Key("FineTuneJob", "team", "b")]


def test_a_replaced_job_triggers_what_the_previous_one_triggered() -> None:
    cache = Cache(INDEXERS)
    cache.put(job("a", version=1, uid="u", modelName="bot", server="s"))
    change = cache.put(job("a", version=2, uid="v", modelName="bot", server="t"))
    assert change
    assert keys_to_reconcile(cache, change) == [Key("ModelServer", "team", "s"), Key("ModelServer", "team", "t"), KEY]


def test_a_job_triggers_others_only_when_it_is_evaluated_or_fails() -> None:
    cache = Cache(INDEXERS)
    server = Key("ModelServer", "team", "s")
    before, running, passed = (job("a", version=number, modelName="bot", server="s") for number in (1, 2, 3))
    running["status"] = {"progress": {"percentage": 50}}
    passed["status"] = {"conditions": [{"type": "Evaluated", "status": "True"}]}
    changes = [cache.put(manifest) for manifest in (before, running, passed)]
    assert [keys_to_reconcile(cache, change) for change in changes if change] == [[server, KEY], [KEY], [server, KEY]]


def test_released_quota_triggers_the_first_job_that_waits_for_each_resource() -> None:
    cache = Cache(INDEXERS)
    for manifest in (
        stored_job("a", waitingFor={"gpus": 8, "jobs": 0}),
        stored_job("bb", waitingFor={"gpus": 1, "jobs": 0}),
        stored_job("ccc", waitingFor={"jobs": 1, "gpus": 0}),
        stored_job("dddd", waitingFor={"jobs": 1, "gpus": 0}),
        stored_stage("x-train-1", "x"),
    ):
        change = cache.put(manifest)
        assert change is not None
        assert len(keys_to_reconcile(cache, change)) == 1
    ended = stored_stage("x-train-1", "x", conditions=true("Complete"))
    ended["metadata"]["resourceVersion"] = "2"
    change = cache.put(ended)
    assert change is not None
    assert keys_to_reconcile(cache, change) == keys("a", "ccc", "x")
    begun = cache.put(stored_job("a", 2, attempts={"prepare": 1, "train": 1}))
    assert begun is not None
    assert keys_to_reconcile(cache, begun) == keys("a", "bb", "ccc")
    assert [active["metadata"]["name"] for active in cache.by_index("FineTuneJob", ACTIVE, "team")] == ["a"]
    gone = cache.remove(stored_job("ccc", 2))
    assert gone is not None
    assert keys_to_reconcile(cache, gone) == keys("bb", "ccc", "dddd")


def keys(*names: str) -> list[Key]:
    return [Key("FineTuneJob", "team", name) for name in names]


def test_a_job_is_new_until_it_has_a_job_or_a_status() -> None:
    cache = Cache(INDEXERS)
    assert not is_new(cache, KEY)
    cache.put(stored_job("a"))
    assert is_new(cache, KEY)
    cache.put(stored_stage("a-train-1", "a"))
    assert not is_new(cache, KEY)
    cache.put(stored_job("b", attempts={"prepare": 1}))
    assert not is_new(cache, Key("FineTuneJob", "team", "b"))
