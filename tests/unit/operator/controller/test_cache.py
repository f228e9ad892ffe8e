"""The cache, under every order of events."""

from finetune_operator.controller.cache import Cache
from finetune_operator.controller.indexes import INDEXERS
from hypothesis import given
from hypothesis import strategies as st
from unit.stored import KEY
from unit.stored import served_job as job


@given(st.permutations([1, 2, 3, 4, 5]))
def test_the_newest_version_wins_in_any_order(versions: list[int]) -> None:
    cache = Cache(INDEXERS)
    for version in versions:
        cache.put(job(version=version))
    known = cache.get(KEY)
    assert known is not None
    assert known["metadata"]["resourceVersion"] == "5"


def test_a_late_event_does_not_restore_a_deleted_object() -> None:
    cache = Cache(INDEXERS)
    cache.put(job(version=1))
    assert cache.remove(job(version=3))
    assert not cache.put(job(version=2))
    assert cache.get(KEY) is None
    assert cache.put(job(version=4, uid="another"))


def test_a_late_deletion_does_not_remove_a_newer_object_of_the_same_name() -> None:
    cache = Cache(INDEXERS)
    cache.put(job(version=5, uid="new"))
    assert not cache.remove(job(version=4, uid="old"))
    assert cache.get(KEY) is not None


def test_a_list_reveals_missed_deletions_but_not_of_later_objects() -> None:
    cache = Cache(INDEXERS)
    cache.put(job("gone", version=7, uid="1"))
    cache.put(job("kept", version=3, uid="3"))
    known = cache.uids("FineTuneJob")
    cache.put(job("fresh", version=6, uid="2"))
    changes = cache.remove_unlisted("FineTuneJob", {"3"}, known)
    assert [change.manifest["metadata"]["name"] for change in changes] == ["gone"]
    assert sorted(key.name for key in cache.keys("FineTuneJob")) == ["fresh", "kept"]


def test_the_cache_is_outdated_for_newer_and_unknown_versions() -> None:
    cache = Cache(INDEXERS)
    cache.put(job("kept", version=3, uid="3"))
    assert [cache.is_outdated(job("kept", version=version, uid="3")) for version in (2, 3, 4)] == [False, False, True]
    assert cache.is_outdated(job("new", version=1, uid="4"))
    cache.put(job("gone", version=5, uid="5"))
    cache.remove(job("gone", version=6, uid="5"))
    assert not cache.is_outdated(job("gone", version=5, uid="5"))
    cache.prune_tombstones(6)
    assert cache.is_outdated(job("gone", version=5, uid="5"))
