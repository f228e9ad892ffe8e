"""Leader election by one Lease (coordination.k8s.io/v1): who may acquire it, and its next contents. No I/O.

The protocol is that of Kubernetes' own components: the leader keeps renewing the Lease; a candidate that sees it
unchanged for the Lease's duration may acquire it. Each candidate measures this on its own monotonic clock, from its
first observation of a version; the times inside the Lease are for people. `leader.py` does the requests.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_operator.kube.kinds import Manifest

SHORTEST_LEASE = 3
"""Seconds; a shorter Lease may expire before a busy API server answers a renewal."""


@dataclass(frozen=True)
class LeaseTiming:
    """All times of an election in seconds, derived from the Lease's duration; names as in client-go."""

    lease_duration: int
    """A Lease that was not renewed for this time may be acquired."""

    @property
    def renew_deadline(self) -> float:
        """A leader that could not renew for this time gives up, well before another may acquire the Lease."""
        return self.lease_duration * 2 / 3

    @property
    def request_timeout(self) -> float:
        """Timeout of one request: a second one fits in before the deadline."""
        return self.renew_deadline / 2

    @property
    def retry_period(self) -> float:
        """Time between two renewals, and between a failed request and the next."""
        return self.lease_duration * 2 / 15

    @property
    def conflict_delay(self) -> float:
        """Time until the next attempt after another candidate was faster, or after a watch ended."""
        return self.lease_duration / 30


@dataclass(frozen=True)
class LeaseObservation:
    """A version of the Lease, and when this process first observed it, by its monotonic clock."""

    lease: Manifest | None
    observed_at: float

    @property
    def holder(self) -> str:
        """The identity of the leader; empty if there is none."""
        return holder_of(self.lease)

    @property
    def expires_at(self) -> float:
        """When the Lease expires unless another version is observed, by this process's clock."""
        return self.observed_at + float(_spec(self.lease).get("leaseDurationSeconds") or 0)

    def update(self, lease: Manifest | None, now: float) -> "LeaseObservation":
        """Return the observation after another read; the same version keeps its first time."""
        return self if _version(lease) == _version(self.lease) else LeaseObservation(lease, now)

    def may_be_acquired(self, identity: str, now: float) -> bool:
        """Return whether the Lease has no holder, has expired, or is held by this identity.

        The last is the case after a write whose response was lost, and after a restart.
        """
        return self.holder in ("", identity) or now >= self.expires_at


def holder_of(lease: Manifest | None) -> str:
    """Return the identity of a Lease's holder; empty if there is none."""
    return str(_spec(lease).get("holderIdentity") or "")


def build_held_lease(lease: Manifest | None, namespace: str, name: str, identity: str, seconds: int) -> Manifest:
    """Return the Lease as `identity` acquires or renews it; with a resource version it replaces that version only."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    before = _spec(lease)
    spec: dict[str, Any] = {**before, "holderIdentity": identity, "leaseDurationSeconds": seconds, "renewTime": now}
    if holder_of(lease) != identity:
        spec["acquireTime"] = now
        spec["leaseTransitions"] = (before.get("leaseTransitions") or 0) + (1 if lease else 0)
    metadata = lease["metadata"] if lease else {"namespace": namespace, "name": name}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def build_released_lease(lease: Manifest) -> Manifest:
    """Return the Lease without a holder: any candidate may acquire it at once."""
    return lease | {"spec": _spec(lease) | {"holderIdentity": ""}}


def _spec(lease: Manifest | None) -> Manifest:
    return dict((lease or {}).get("spec") or {})


def _version(lease: Manifest | None) -> str | None:
    return str(lease["metadata"]["resourceVersion"]) if lease else None
