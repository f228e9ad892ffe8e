"""Decisions about the Lease: its holder, when another candidate may acquire it, and its next contents."""

from typing import Any

import pytest
from finetune_operator.kube.lease import (
    SHORTEST_LEASE,
    LeaseObservation,
    LeaseTiming,
    build_held_lease,
    build_released_lease,
    holder_of,
)

NOTHING_OBSERVED = LeaseObservation(None, 0)


def lease(holder: str = "a", version: str = "1", seconds: int = 15, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "system", "name": "operator", "resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 2} | spec,
    }


@pytest.mark.parametrize(
    ("observed", "identity", "now", "may"),
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
        "absent",
        "released",
        "held by the candidate after a lost response",
        "just observed",
        "not expired yet",
        "expired",
        "expires after the duration that the holder wrote",
        "empty",
    ],
)
def test_a_lease_may_be_acquired_once_it_is_free_or_expired(
    observed: dict[str, Any] | None, identity: str, now: float, may: bool
) -> None:
    assert NOTHING_OBSERVED.update(observed, 0).may_be_acquired(identity, now) is may


def test_a_lease_expires_from_the_first_observation_of_its_version() -> None:
    observation = NOTHING_OBSERVED.update(lease(version="1"), 100).update(lease(version="1"), 110)
    assert not observation.may_be_acquired("b", 114.9)
    assert observation.may_be_acquired("b", 115)
    renewed = observation.update(lease(version="2"), 114)
    assert not renewed.may_be_acquired("b", 128.9)


def test_the_times_inside_a_lease_mean_nothing() -> None:
    for stamp in ("1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"):
        observation = NOTHING_OBSERVED.update(lease(renewTime=stamp, acquireTime=stamp), 0)
        assert [observation.may_be_acquired("b", now) for now in (14, 15)] == [False, True]


def test_acquiring_replaces_the_version_that_was_read() -> None:
    taken = build_held_lease(lease(), "system", "operator", "b", 15)
    assert taken["metadata"]["resourceVersion"] == "1"
    assert (holder_of(taken), taken["spec"]["leaseTransitions"]) == ("b", 3)
    assert taken["spec"]["acquireTime"] == taken["spec"]["renewTime"]


def test_a_renewal_is_not_a_transition() -> None:
    stamp = "2026-01-01T00:00:00.000000Z"
    renewed = build_held_lease(lease(acquireTime=stamp, renewTime=stamp), "system", "operator", "a", 15)
    assert (renewed["spec"]["leaseTransitions"], renewed["spec"]["acquireTime"]) == (2, stamp)
    assert renewed["spec"]["renewTime"] > stamp


def test_the_first_lease_has_a_name_and_no_version() -> None:
    created = build_held_lease(None, "system", "operator", "a", 15)
    assert created["metadata"] == {"namespace": "system", "name": "operator"}
    assert (holder_of(created), created["spec"]["leaseTransitions"]) == ("a", 0)


def test_a_released_lease_may_be_acquired_at_once() -> None:
    released = build_released_lease(lease())
    assert released["metadata"]["resourceVersion"] == "1"
    assert NOTHING_OBSERVED.update(released, 0).may_be_acquired("b", 0)
    assert build_held_lease(released, "system", "operator", "b", 15)["spec"]["leaseTransitions"] == 3


@pytest.mark.parametrize("seconds", [SHORTEST_LEASE, 15, 60])
def test_a_leader_gives_up_long_before_another_may_acquire_the_lease(seconds: int) -> None:
    timing = LeaseTiming(seconds)
    assert timing.renew_deadline + timing.request_timeout <= timing.lease_duration
    assert timing.retry_period + timing.request_timeout + timing.conflict_delay < timing.renew_deadline
    assert timing.conflict_delay <= timing.retry_period / 2


def test_the_defaults_are_those_of_kubernetes_own_components() -> None:
    timing = LeaseTiming(15)
    assert (timing.lease_duration, timing.renew_deadline, timing.retry_period) == (15, 10, 2)
    assert (timing.request_timeout, timing.conflict_delay) == (5, 0.5)
