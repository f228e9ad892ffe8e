"""Decisions about the Lease: who holds it, from when on another may take it, and what is written."""

from typing import Any

import pytest
from finetune_operator.kube.lease import SHORTEST_LEASE, Sight, Timing, build_claim, build_release, holder_of

NOBODY = Sight(None, 0)


def lease(holder: str = "a", version: str = "1", seconds: int = 15, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "system", "name": "operator", "resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 2} | spec,
    }


@pytest.mark.parametrize(
    ("seen", "identity", "now", "may"),
    [
        (None, "b", 0, True),
        (lease(holder=""), "b", 0, True),
        (lease(holder="a"), "a", 0, True),
        (lease(), "b", 0, False),
        (lease(), "b", 14.9, False),
        (lease(), "b", 15, True),
        (lease(seconds=60), "b", 15, False),
        ({"metadata": {"resourceVersion": "1"}}, "b", 0, True),
    ],
    ids=[
        "there is none",
        "it was released",
        "one's own by a lost answer",
        "just seen",
        "not silent for long enough",
        "silent for long enough",
        "silence is measured by what the holder promised",
        "it says nothing",
    ],
)
def test_a_lease_may_be_taken_once_it_is_free_or_its_holder_is_silent(
    seen: dict[str, Any] | None, identity: str, now: float, may: bool
) -> None:
    assert NOBODY.look(seen, 0).may_be_taken(identity, now) is may


def test_silence_counts_from_when_a_version_was_first_seen() -> None:
    sight = NOBODY.look(lease(version="1"), 100).look(lease(version="1"), 110)
    assert not sight.may_be_taken("b", 114.9)
    assert sight.may_be_taken("b", 115)
    renewed = sight.look(lease(version="2"), 114)
    assert not renewed.may_be_taken("b", 128.9)


def test_the_times_inside_a_lease_mean_nothing() -> None:
    for stamp in ("1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"):
        sight = NOBODY.look(lease(renewTime=stamp, acquireTime=stamp), 0)
        assert [sight.may_be_taken("b", now) for now in (14, 15)] == [False, True]


def test_a_claim_holds_for_the_version_that_was_read() -> None:
    taken = build_claim(lease(), "system", "operator", "b", 15)
    assert taken["metadata"]["resourceVersion"] == "1"
    assert (holder_of(taken), taken["spec"]["leaseTransitions"]) == ("b", 3)
    assert taken["spec"]["acquireTime"] == taken["spec"]["renewTime"]


def test_a_renewal_is_no_transition() -> None:
    stamp = "2026-01-01T00:00:00.000000Z"
    renewed = build_claim(lease(acquireTime=stamp, renewTime=stamp), "system", "operator", "a", 15)
    assert (renewed["spec"]["leaseTransitions"], renewed["spec"]["acquireTime"]) == (2, stamp)
    assert renewed["spec"]["renewTime"] > stamp


def test_the_first_claim_names_the_lease_and_no_version() -> None:
    created = build_claim(None, "system", "operator", "a", 15)
    assert created["metadata"] == {"namespace": "system", "name": "operator"}
    assert (holder_of(created), created["spec"]["leaseTransitions"]) == ("a", 0)


def test_a_released_lease_may_be_taken_at_once() -> None:
    released = build_release(lease())
    assert released["metadata"]["resourceVersion"] == "1"
    assert NOBODY.look(released, 0).may_be_taken("b", 0)
    assert build_claim(released, "system", "operator", "b", 15)["spec"]["leaseTransitions"] == 3


@pytest.mark.parametrize("seconds", [SHORTEST_LEASE, 15, 60])
def test_a_leader_stops_long_before_another_may_begin(seconds: int) -> None:
    timing = Timing(seconds)
    assert timing.deadline + timing.timeout <= timing.lease
    assert timing.renewal + timing.timeout + timing.look < timing.deadline
    assert timing.look <= timing.renewal / 2


def test_the_defaults_are_those_of_kubernetes_own_components() -> None:
    timing = Timing(15)
    assert (timing.lease, timing.deadline, timing.renewal) == (15, 10, 2)
    assert (timing.timeout, timing.look) == (5, 0.5)
