"""Moves the node's share of traffic to what the coordinator wants: down at once, up when its peers have looked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from agent.shares import Facts, Lower, Raise, decide_share, share_again, wanted_of
from agent.traffic import Traffic
from shared.clock import Clock, wait_at_most
from shared.errors import RollcallError
from shared.release import Release
from shared.traffic import Step, TrafficWord
from shared.wire import short

log = structlog.get_logger()

IDLE_S = 5.0
"""What changes is told; this is for what would not be."""
ASK_AGAIN_S = 3.0
COLLECT_S = 20.0
"""How long one round of asking the peers may take."""


class Attestors(Protocol):
    async def collect(
        self, order: str, release: Release, ready_probe_sha256: str, timeout_s: float
    ) -> list[str]: ...


class Node(Protocol):
    """What is known of this node now."""

    def facts(self, word: TrafficWord | None, attested: str | None) -> Facts: ...
    def ready_probe_sha256(self) -> str: ...
    async def signed(self, release: str | None) -> Release | None: ...


class Weighing:
    """`wanted` and `waits` are for the report. Without the coordinator nothing changes, in either direction."""

    def __init__(
        self,
        traffic: Traffic,
        attestors: Attestors,
        node: Node,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self._traffic, self._attestors, self._node = traffic, attestors, node
        self._clock, self._on_change = clock, on_change
        self._word: TrafficWord | None = None
        self._attested: str | None = None
        self._stirred = asyncio.Event()
        self.waits = ""
        self._failed = ""
        """Why the peers did not all sign when they were asked last."""

    @property
    def tag(self) -> str:
        """Of the word that it has heard; empty for none."""
        return "" if self._word is None else self._word.tag

    @property
    def wanted(self) -> int | None:
        return wanted_of(self._word, self._facts().release)

    def again(self, before: int) -> int:
        """The share to take after an order had the gateway out."""
        return share_again(before, self._facts())

    def heard(self, word: TrafficWord | None) -> None:
        """The coordinator's word, or that it was lost."""
        if word != self._word:
            self._word = word
            self._traffic.hold("" if word is None else word.frozen)
            self.stir()

    def stir(self) -> None:
        """Something that counts may have changed."""
        self._stirred.set()

    def _facts(self) -> Facts:
        return self._node.facts(self._word, self._attested)

    async def run(self) -> None:
        while True:
            self._stirred.clear()
            try:
                await self._look()
            except (RollcallError, OSError) as error:
                self._failed = short(str(error))
                self._wait_for(self._failed)
                await self._clock.sleep(ASK_AGAIN_S)
                continue
            await wait_at_most(self._stirred, IDLE_S)

    async def _look(self) -> None:
        """Raises RollcallError when the peers have not all signed green."""
        match decide_share(self._facts()):
            case Lower(step) as lower:
                self._wait_for("")
                if await self._traffic.set_while(step.percent, lambda: self._still(lower)):
                    log.info("share lowered", percent=step.percent, by=step.by)
            case Raise() as wider:
                await self._raise(wider)
            case stay:
                self._wait_for(stay.reason)

    def _still(self, decision: Lower | Raise) -> bool:
        return decide_share(self._facts()) == decision

    async def _raise(self, wider: Raise) -> None:
        """What is decided otherwise meanwhile ends the asking: a share is lowered at once."""
        step = wider.step
        asks = f"waits for its peers to look before it takes {step.percent} %"
        self._wait_for(short(f"{asks}; last time: {self._failed}" if self._failed else asks))
        names = await self._while_decided(wider, self._collect(step))
        if names is None:
            return
        if await self._traffic.set_while(step.percent, lambda: self._still(wider)):
            self._attested, self._failed = step.id, ""
            log.info("share", percent=step.percent, attested_by=names)
            self._wait_for("")

    async def _collect(self, step: Step) -> list[str]:
        release = await self._node.signed(self._facts().release)
        if release is None:
            raise RollcallError("the signed release that runs here is not at hand")
        sha256 = self._node.ready_probe_sha256()
        return await self._attestors.collect(step.id, release, sha256, COLLECT_S)

    async def _while_decided(self, wider: Raise, work: Awaitable[list[str]]) -> list[str] | None:
        """The work's result; None when it was ended because something else is decided now."""
        task = asyncio.ensure_future(work)
        try:
            while True:
                self._stirred.clear()
                stirred = asyncio.ensure_future(self._stirred.wait())
                try:
                    await asyncio.wait({task, stirred}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stirred.cancel()
                if task.done():
                    return task.result()
                if not self._still(wider):
                    self.stir()
                    return None
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _wait_for(self, reason: str) -> None:
        if reason != self.waits:
            self.waits = reason
            self._on_change()
