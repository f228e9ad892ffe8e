"""Who may lead: decisions about one Lease (coordination.k8s.io/v1), and how it is written.

The protocol is that of Kubernetes' own components: whoever leads writes the Lease again and again; who sees it
unchanged for as long as it holds may take it. What counts is when a version was first seen, on one's own monotonic
clock: the times inside the Lease are for people. `leader.py` carries it out.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_operator.kube.kinds import Manifest

SHORTEST_LEASE = 3
"""Seconds; in less a renewal may not get through a busy API server."""


@dataclass(frozen=True)
class Timing:
    """All times of an election, in seconds, from the one that the others must know."""

    lease: int
    """A Lease that nobody wrote for so long may be taken."""

    @property
    def deadline(self) -> float:
        """A leader that could not renew for so long leads no more: well before another may."""
        return self.lease * 2 / 3

    @property
    def timeout(self) -> float:
        """One request: a second one fits in before the deadline."""
        return self.deadline / 2

    @property
    def renewal(self) -> float:
        """From one renewal to the next, and from a failure to the next try."""
        return self.lease * 2 / 15

    @property
    def look(self) -> float:
        """From a try that somebody else was quicker with, or a watch that has ended, to the next."""
        return self.lease / 30


@dataclass(frozen=True)
class Sight:
    """A version of the Lease, and when it was first seen on one's own clock."""

    lease: Manifest | None
    since: float

    @property
    def holder(self) -> str:
        """Who leads; empty where nobody does."""
        return holder_of(self.lease)

    @property
    def runs_out(self) -> float:
        """When it may be taken on one's own clock, if no other version is seen before."""
        return self.since + float(_spec(self.lease).get("leaseDurationSeconds") or 0)

    def look(self, lease: Manifest | None, now: float) -> "Sight":
        """Return what is seen now: the same version was there all along."""
        return self if _version(lease) == _version(self.lease) else Sight(lease, now)

    def may_be_taken(self, identity: str, now: float) -> bool:
        """Tell whether nobody holds the Lease, or its holder was silent for too long, or is oneself.

        It is one's own after a write whose answer was lost, and after a restart.
        """
        return self.holder in ("", identity) or now >= self.runs_out


def holder_of(lease: Manifest | None) -> str:
    """Return who leads by a Lease; empty where nobody does."""
    return str(_spec(lease).get("holderIdentity") or "")


def build_claim(lease: Manifest | None, namespace: str, name: str, identity: str, seconds: int) -> Manifest:
    """Return the Lease as `identity` takes or renews it; with a resource version it holds for that version only."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    before = _spec(lease)
    spec: dict[str, Any] = {**before, "holderIdentity": identity, "leaseDurationSeconds": seconds, "renewTime": now}
    if holder_of(lease) != identity:
        spec["acquireTime"] = now
        spec["leaseTransitions"] = (before.get("leaseTransitions") or 0) + (1 if lease else 0)
    metadata = lease["metadata"] if lease else {"namespace": namespace, "name": name}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def build_release(lease: Manifest) -> Manifest:
    """Return the Lease as its holder leaves it: whoever sees it may take it."""
    return lease | {"spec": _spec(lease) | {"holderIdentity": ""}}


def _spec(lease: Manifest | None) -> Manifest:
    return dict((lease or {}).get("spec") or {})


def _version(lease: Manifest | None) -> str | None:
    return str(lease["metadata"]["resourceVersion"]) if lease else None
