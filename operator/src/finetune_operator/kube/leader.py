"""Leader election among the operator's replicas: acquires, renews and releases the Lease. `lease.py` decides.

A process leads once. When it loses the Lease it exits and restarts as a standby, so no half-done work continues.
"""

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass

from finetune_operator.kube.client import ApiError, KubeClient
from finetune_operator.kube.kinds import Manifest
from finetune_operator.kube.lease import (
    LeaseObservation,
    LeaseTiming,
    build_held_lease,
    build_released_lease,
    holder_of,
)
from finetune_operator.metrics import LEADER

_LOG = logging.getLogger(__name__)


class LeadershipLostError(Exception):
    """Another process may lead by now: this one must not write."""


@dataclass(frozen=True)
class LeaderCandidate:
    """The Lease to acquire, and the identity to acquire it as."""

    namespace: str
    lease: str
    identity: str
    """Differs from that of every other process that may be alive."""
    timing: LeaseTiming


class LeaderElector:
    """Takes part in the election as one candidate."""

    def __init__(self, client: KubeClient, candidate: LeaderCandidate) -> None:
        """Use a client without a fence: the Lease must be writable before this process leads."""
        self._client, self._candidate = client, candidate
        self._lease: Manifest | None = None
        self._observation = LeaseObservation(None, time.monotonic())
        self._leads_until = float("-inf")

    async def acquire(self) -> None:
        """Wait as a standby until this process has acquired the Lease."""
        logged_holder = ""
        while True:
            try:
                # A watch event is only a hint to read: the version to replace is the API server's current one.
                lease = await self._read()
                self._observe(lease)
                if lease and not self._may_acquire():
                    if logged_holder != self._observation.holder:
                        logged_holder = self._observation.holder
                        _LOG.info("standing by: %s is the leader", logged_holder)
                    await self._follow(lease)
                elif await self._hold(lease):
                    break
                else:
                    await asyncio.sleep(self._candidate.timing.conflict_delay)
            except (ApiError, TimeoutError) as error:
                _LOG.warning("cannot read or acquire the Lease: %r", error)
                await asyncio.sleep(self._candidate.timing.retry_period)
        LEADER.set(1)
        _LOG.info("%s became the leader", self._candidate.identity)

    async def renew(self) -> None:
        """Keep renewing the Lease; this never returns.

        Raises:
            LeadershipLostError: this process no longer leads.
        """
        timing = self._candidate.timing
        while True:
            try:
                async with asyncio.timeout(self._leads_until - time.monotonic()):
                    await asyncio.sleep(timing.retry_period)
                    await self._renew_once()
            except TimeoutError:
                raise LeadershipLostError(f"could not renew the Lease for {timing.renew_deadline:.1f} s") from None

    def check(self) -> None:
        """Check, before a write, that this process still leads by its own clock.

        Raises:
            LeadershipLostError: it does not, or never did.
        """
        if time.monotonic() >= self._leads_until:
            raise LeadershipLostError("the Lease was not renewed in time")

    async def release(self) -> None:
        """Release the Lease if this process holds it; afterwards it must not write."""
        self._leads_until = float("-inf")
        try:
            # A cancelled write may still have reached the API server: only the Lease itself says who holds it.
            while (lease := await self._read()) and holder_of(lease) == self._candidate.identity:
                if await self._write(build_released_lease(lease)):
                    _LOG.info("%s released the Lease", self._candidate.identity)
                    return
        except (ApiError, TimeoutError) as error:
            _LOG.warning("cannot release the Lease, it will expire: %r", error)

    async def _follow(self, lease: Manifest) -> None:
        """Watch the Lease from a version on, until it may be acquired or the watch ends.

        A watch that hangs looks like a silent leader: both end when the Lease expires.
        """
        now = asyncio.get_running_loop().time
        try:
            async with (
                aclosing(self._client.watch_lease(lease)) as versions,
                asyncio.timeout(self._remaining()) as timeout,
            ):
                async for version in versions:
                    self._observe(version)
                    if self._may_acquire():
                        return
                    timeout.reschedule(now() + self._remaining())
        except TimeoutError:
            return
        # Pause: a watch may end immediately, every time.
        await asyncio.sleep(self._candidate.timing.conflict_delay)

    def _observe(self, lease: Manifest | None) -> None:
        self._observation = self._observation.update(lease, time.monotonic())

    def _may_acquire(self) -> bool:
        return self._observation.may_be_acquired(self._candidate.identity, time.monotonic())

    def _remaining(self) -> float:
        """Return the seconds until the Lease expires unless another version is observed."""
        return self._observation.expires_at - time.monotonic()

    async def _renew_once(self) -> None:
        """Renew the Lease, and retry as long as this process holds it."""
        while True:
            try:
                if await self._hold(self._lease):
                    return
                self._lease = await self._read()
            except (ApiError, TimeoutError) as error:
                _LOG.warning("cannot renew the Lease: %r", error)
            holder = holder_of(self._lease)
            if holder != self._candidate.identity:
                raise LeadershipLostError(f"the Lease is held by {holder or 'nobody'}")
            await asyncio.sleep(self._candidate.timing.conflict_delay)

    async def _hold(self, lease: Manifest | None) -> bool:
        """Write the Lease with this process as holder; return False if another wrote it since it was read."""
        sent_at, candidate = time.monotonic(), self._candidate
        seconds = candidate.timing.lease_duration
        held = build_held_lease(lease, candidate.namespace, candidate.lease, candidate.identity, seconds)
        written = await self._write(held)
        if written is None:
            return False
        self._lease = written
        # Counts from before the request was sent; all others count from after it was written.
        self._leads_until = sent_at + candidate.timing.renew_deadline
        return True

    async def _read(self) -> Manifest | None:
        async with asyncio.timeout(self._candidate.timing.request_timeout):
            return await self._client.get_lease(self._candidate.namespace, self._candidate.lease)

    async def _write(self, lease: Manifest) -> Manifest | None:
        async with asyncio.timeout(self._candidate.timing.request_timeout):
            return await self._client.write_lease(lease)
