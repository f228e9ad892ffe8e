"""The operator's memory, under every order of events."""

from typing import Any

from finetune_operator.controller.cache import Change, Store, concerned
from finetune_operator.controller.trim import keep
from finetune_operator.kube.kinds import Key
from hypothesis import given
from hypothesis import strategies as st
from unit.stored import KEY, stored_job, stored_stage, true


def job(name: str = "a", version: int = 1, uid: str = "u", **serving: str) -> dict[str, Any]:
    spec = {"serving": serving} if serving else {}
    metadata = {"name": name, "namespace": "team", "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": metadata, "spec": spec}


def child(kind: str, name: str, version: int, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": str(version)}
    metadata["labels"] = {f"finetune.dev/{key}": value for key, value in labels.items()}  # type: ignore[assignment]
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


@given(st.permutations([1, 2, 3, 4, 5]))
def test_the_newest_version_wins_in_any_order(versions: list[int]) -> None:
    store = Store()
    for version in versions:
        store.put(job(version=version))
    known = store.get(KEY)
    assert known is not None
    assert known["metadata"]["resourceVersion"] == "5"


def test_a_late_event_does_not_revive_what_was_deleted() -> None:
    store = Store()
    store.put(job(version=1))
    assert store.remove(job(version=3))
    assert not store.put(job(version=2))
    assert store.get(KEY) is None
    assert store.put(job(version=4, uid="another"))


def test_the_deletion_of_an_ancestor_does_not_remove_its_namesake() -> None:
    store = Store()
    store.put(job(version=5, uid="new"))
    assert not store.remove(job(version=4, uid="old"))
    assert store.get(KEY) is not None


def test_a_list_tells_of_missed_deletions_and_nothing_of_what_came_later() -> None:
    store = Store()
    store.put(job("gone", version=7, uid="1"))
    store.put(job("kept", version=3, uid="3"))
    known = store.uids("FineTuneJob")
    store.put(job("fresh", version=6, uid="2"))
    changed = store.retain("FineTuneJob", {"3"}, known)
    assert [one.manifest["metadata"]["name"] for one in changed] == ["gone"]
    assert sorted(key.name for key in store.keys("FineTuneJob")) == ["fresh", "kept"]


def test_an_audit_reads_what_is_newer_than_known_and_what_is_unknown() -> None:
    store = Store()
    store.put(job("kept", version=3, uid="3"))
    assert [store.is_behind(job("kept", version=version, uid="3")) for version in (2, 3, 4)] == [False, False, True]
    assert store.is_behind(job("new", version=1, uid="4"))
    store.put(job("gone", version=5, uid="5"))
    store.remove(job("gone", version=6, uid="5"))
    assert not store.is_behind(job("gone", version=5, uid="5"))
    store.forget_deletions(6)
    assert store.is_behind(job("gone", version=5, uid="5"))


def test_a_child_concerns_the_owners_that_its_labels_name() -> None:
    store = Store()
    pod = child("Pod", "p", 1, job="a", server="s")
    store.put(pod)
    assert concerned(store, Change(pod)) == [Key("ModelServer", "team", "s"), KEY]
    assert store.children("Pod", KEY) == [keep(pod)]


def test_a_job_concerns_its_server_and_its_rivals() -> None:
    store = Store()
    mine, rival = job("a", modelName="bot", server="s"), job("b", uid="v", modelName="bot", server="s")
    store.put(mine)
    store.put(rival)
    store.put(job("c", uid="w", modelName="other", server="s"))
    assert concerned(store, Change(mine)) == [Key("ModelServer", "team", "s"), KEY, Key("FineTuneJob", "team", "b")]


def test_a_job_concerns_those_that_begin_with_its_result() -> None:
    store = Store()
    follower = job("b", uid="v")
    follower["spec"]["model"] = {"uri": "finetunejob://a"}
    store.put(follower)
    assert concerned(store, Change(job("a"))) == [KEY, Key("FineTuneJob", "team", "b")]


def test_a_job_that_replaces_one_whose_deletion_was_missed_concerns_whom_that_one_concerned() -> None:
    store = Store()
    store.put(job("a", version=1, uid="u", modelName="bot", server="s"))
    change = store.put(job("a", version=2, uid="v", modelName="bot", server="t"))
    assert change
    assert concerned(store, change) == [Key("ModelServer", "team", "s"), Key("ModelServer", "team", "t"), KEY]


def test_others_look_again_only_when_a_job_is_proven_or_fails() -> None:
    store = Store()
    server = Key("ModelServer", "team", "s")
    before, running, proven = (job("a", version=number, modelName="bot", server="s") for number in (1, 2, 3))
    running["status"] = {"progress": {"percentage": 50}}
    proven["status"] = {"conditions": [{"type": "Evaluated", "status": "True"}]}
    changes = [store.put(one) for one in (before, running, proven)]
    assert [concerned(store, change) for change in changes if change] == [[server, KEY], [KEY], [server, KEY]]


def test_the_first_of_each_line_looks_again_when_something_is_given_back_in_its_namespace() -> None:
    store = Store()
    for one in (
        stored_job("a", waitingFor={"gpus": 8, "jobs": 0}),
        stored_job("bb", waitingFor={"gpus": 1, "jobs": 0}),
        stored_job("ccc", waitingFor={"jobs": 1, "gpus": 0}),
        stored_job("dddd", waitingFor={"jobs": 1, "gpus": 0}),
        stored_stage("x-train-1", "x"),
    ):
        change = store.put(one)
        assert change is not None
        assert len(concerned(store, change)) == 1
    ended = stored_stage("x-train-1", "x", conditions=true("Complete"))
    ended["metadata"]["resourceVersion"] = "2"
    change = store.put(ended)
    assert change is not None
    assert concerned(store, change) == keys("a", "ccc", "x")
    begun = store.put(stored_job("a", 2, attempts={"prepare": 1, "train": 1}))
    assert begun is not None
    assert concerned(store, begun) == keys("a", "bb", "ccc")
    assert [one["metadata"]["name"] for one in store.at_work("team")] == ["a"]
    gone = store.remove(stored_job("ccc", 2))
    assert gone is not None
    assert concerned(store, gone) == keys("bb", "ccc", "dddd")


def keys(*names: str) -> list[Key]:
    return [Key("FineTuneJob", "team", name) for name in names]
