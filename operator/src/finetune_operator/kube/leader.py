"""Leadership of one of several operators: takes the Lease, keeps it, hands it over. `lease.py` decides.

A process leads once. When it loses the Lease it ends, and is started again as a standby: no half-done work goes on.
"""

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass

from finetune_operator.kube.client import ApiError, Cluster
from finetune_operator.kube.kinds import Manifest
from finetune_operator.kube.lease import Sight, Timing, build_claim, build_release, holder_of
from finetune_operator.metrics import LEADER

_LOG = logging.getLogger(__name__)


class LeadershipLostError(Exception):
    """Another may lead by now: nothing may be written any more."""


@dataclass(frozen=True)
class Candidate:
    """Which Lease decides, and as whom one asks for it."""

    namespace: str
    lease: str
    identity: str
    """Unlike that of every other process that may be alive."""
    timing: Timing


class Elector:
    """One process's part in the election."""

    def __init__(self, cluster: Cluster, candidate: Candidate) -> None:
        """Ask for the Lease through a connection that no fence guards."""
        self._cluster, self._me = cluster, candidate
        self._lease: Manifest | None = None
        self._sight = Sight(None, time.monotonic())
        self._leads_until = float("-inf")

    async def win(self) -> None:
        """Stand by until this process leads."""
        told = ""
        while True:
            try:
                # Whatever a watch told before: what counts is what the API server has now.
                lease = await self._read()
                self._see(lease)
                if lease and not self._may_take():
                    if told != self._sight.holder:
                        told = self._sight.holder
                        _LOG.info("stands by: %s leads", told)
                    await self._follow(lease)
                elif await self._claim(lease):
                    break
                else:
                    await asyncio.sleep(self._me.timing.look)
            except (ApiError, TimeoutError) as error:
                _LOG.warning("the Lease cannot be asked for: %r", error)
                await asyncio.sleep(self._me.timing.renewal)
        LEADER.set(1)
        _LOG.info("%s leads", self._me.identity)

    async def keep(self) -> None:
        """Keep leading, for ever.

        Raises:
            LeadershipLostError: this process leads no more.
        """
        while True:
            try:
                async with asyncio.timeout(self._leads_until - time.monotonic()):
                    await asyncio.sleep(self._me.timing.renewal)
                    await self._renew()
            except TimeoutError:
                raise LeadershipLostError(f"the Lease was not renewed for {self._me.timing.deadline:.1f} s") from None

    def check(self) -> None:
        """Fence a write: this process still leads, by its own clock.

        Raises:
            LeadershipLostError: it does not, or never did.
        """
        if time.monotonic() >= self._leads_until:
            raise LeadershipLostError("the Lease was not renewed in time")

    async def release(self) -> None:
        """Leave the Lease to whoever wants it, if it is this process's; nothing may be written afterwards."""
        self._leads_until = float("-inf")
        try:
            # A write that was cancelled may have come through all the same: what counts is what the Lease says.
            while (lease := await self._read()) and holder_of(lease) == self._me.identity:
                if await self._write(build_release(lease)):
                    _LOG.info("%s leads no more", self._me.identity)
                    return
        except (ApiError, TimeoutError) as error:
            _LOG.warning("the Lease could not be released and runs out by itself: %r", error)

    async def _follow(self, lease: Manifest) -> None:
        """Watch the Lease from a version on, until it may be taken or the watch ends.

        A watch that tells nothing any more looks like a leader that is silent: both are over when the Lease runs out.
        """
        now = asyncio.get_running_loop().time
        try:
            async with aclosing(self._cluster.watch_lease(lease)) as versions, asyncio.timeout(self._left()) as limit:
                async for version in versions:
                    self._see(version)
                    if self._may_take():
                        return
                    limit.reschedule(now() + self._left())
        except TimeoutError:
            return
        # One that ends at once, again and again, is not asked for without a pause.
        await asyncio.sleep(self._me.timing.look)

    def _see(self, lease: Manifest | None) -> None:
        self._sight = self._sight.look(lease, time.monotonic())

    def _may_take(self) -> bool:
        return self._sight.may_be_taken(self._me.identity, time.monotonic())

    def _left(self) -> float:
        """Return the seconds until the Lease runs out, if nothing new is seen of it."""
        return self._sight.runs_out - time.monotonic()

    async def _renew(self) -> None:
        """Renew the Lease, and try again for as long as it is one's own."""
        while True:
            try:
                if await self._claim(self._lease):
                    return
                self._lease = await self._read()
            except (ApiError, TimeoutError) as error:
                _LOG.warning("the Lease was not renewed: %r", error)
            holder = holder_of(self._lease)
            if holder != self._me.identity:
                raise LeadershipLostError(f"{holder or 'nobody'} leads by the Lease")
            await asyncio.sleep(self._me.timing.look)

    async def _claim(self, lease: Manifest | None) -> bool:
        """Write the Lease as one's own; return False where another wrote it since it was read."""
        sent, me = time.monotonic(), self._me
        claim = build_claim(lease, me.namespace, me.lease, me.identity, me.timing.lease)
        written = await self._write(claim)
        if written is None:
            return False
        self._lease = written
        # Counted from before it was sent, while all others count from after it was written.
        self._leads_until = sent + me.timing.deadline
        return True

    async def _read(self) -> Manifest | None:
        async with asyncio.timeout(self._me.timing.timeout):
            return await self._cluster.get_lease(self._me.namespace, self._me.lease)

    async def _write(self, lease: Manifest) -> Manifest | None:
        async with asyncio.timeout(self._me.timing.timeout):
            return await self._cluster.write_lease(lease)
