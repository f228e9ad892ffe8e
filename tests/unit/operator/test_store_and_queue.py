"""The operator's memory and its queue, under every order of events."""

import asyncio
from typing import Any

from finetune_operator.keeping import keep
from finetune_operator.kinds import Key
from finetune_operator.store import Change, Store, concerned
from finetune_operator.workqueue import WorkQueue
from hypothesis import given
from hypothesis import strategies as st

KEY = Key("FineTuneJob", "team", "a")


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


def test_an_audit_reads_what_is_newer_than_it_is_known_and_what_is_not_known_at_all() -> None:
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


def open_queue() -> WorkQueue:
    queue = WorkQueue(lambda key: key.name.startswith("new"))
    queue.open([])
    return queue


async def test_new_keys_go_first_and_leave_the_others_every_sixteenth_turn() -> None:
    queue = open_queue()
    for number in range(3):
        queue.add(KEY._replace(name=f"old-{number}"))
    for number in range(32):
        queue.add(KEY._replace(name=f"new-{number}"))
    order = [(await queue.get()).name for _ in range(35)]
    news, olds = iter(range(32)), iter(range(3))
    turns = [f"old-{next(olds)}" if turn in (16, 32, 35) else f"new-{next(news)}" for turn in range(1, 36)]
    assert order == turns


async def test_a_key_that_is_not_new_any_more_keeps_its_place() -> None:
    new: set[str] = {"a"}
    queue = WorkQueue(lambda key: key.name in new)
    queue.open([KEY._replace(name="b"), KEY._replace(name="a")])
    new.clear()
    queue.add(KEY._replace(name="a"))
    new.add("b")
    queue.add(KEY._replace(name="b"))
    assert [(await queue.get()).name for _ in range(2)] == ["a", "b"]
    assert not queue


async def test_a_queue_keeps_nothing_until_it_is_opened() -> None:
    queue = WorkQueue(lambda key: key.name.startswith("new"))
    queue.add(KEY._replace(name="gone by then"))
    assert len(queue) == 0
    queue.open([KEY])
    assert await queue.get() == KEY


async def test_a_key_is_worked_on_once_and_again_when_it_changed_meanwhile() -> None:
    queue = open_queue()
    queue.add(KEY)
    queue.add(KEY)
    assert await queue.get() == KEY
    queue.add(KEY)
    assert len(queue) == 0
    queue.done(KEY)
    assert await queue.get() == KEY
    queue.done(KEY)
    assert len(queue) == 0


async def test_failures_come_back_later_each_time() -> None:
    queue = open_queue()
    delays = []
    for _ in range(4):
        queue.add(KEY)
        await queue.get()
        delays.append(queue.failed(KEY))
    assert delays[-1] > delays[0]
    assert await asyncio.wait_for(queue.get(), 5) == KEY


async def test_an_earlier_wish_stands() -> None:
    queue = open_queue()
    queue.add_after(KEY, 0.01)
    queue.add_after(KEY, 60)
    assert await asyncio.wait_for(queue.get(), 5) == KEY
