"""Puts together how this node talks with its peers: messages, their delivery, and comparing notes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from agent.config import PeerConfig
from agent.peers.datagrams import Datagrams
from agent.peers.directory import Directory
from agent.peers.each import serve_each_peer
from agent.peers.links import Links
from agent.peers.liveness import Liveness
from agent.peers.mesh import Mesh
from agent.peers.notes import Notes
from agent.peers.outbox import Outbox
from agent.peers.transport import Transport
from agent.store import Store
from agent.trust import Trust
from shared.clock import Clock
from shared.messages import Message
from shared.ratelimit import RateLimit

log = structlog.get_logger()

BAD_DATAGRAMS = 64
BAD_WINDOW_S = 60.0
"""So many datagrams of one address that prove to be nothing, and it has to take the other door."""


class Peering:
    """`mesh` is what the rest of the agent knows of it. Opened on the daemon's exit stack."""

    def __init__(  # noqa: PLR0913 - one part out of everything that it joins
        self,
        config: PeerConfig,
        trust: Trust,
        store: Store,
        transport: Transport,
        directory: Directory,
        links: Links,
        clock: Clock,
        *,
        epoch: int,
        on_message: Callable[[Message], None],
        on_change: Callable[[], None],
    ) -> None:
        self._trust, self._links, self._clock = trust, links, clock
        dropped: Counter[str] = Counter()
        patience = RateLimit(clock, failures=BAD_DATAGRAMS, window_s=BAD_WINDOW_S)
        self._datagrams = Datagrams(self._receive, self._take_ack, patience, dropped)
        self._outbox = Outbox(trust, store, transport, directory, self._datagrams, clock, on_change)
        self.mesh = Mesh(
            trust,
            store,
            self._outbox,
            clock,
            epoch,
            on_message=on_message,
            on_change=on_change,
            dropped=dropped,
        )
        self.liveness = Liveness(
            trust, transport, links, clock, probes=config.probes, on_change=on_change
        )
        self._notes = Notes(self.mesh, transport, clock, every_s=config.sync_every)

    async def _receive(self, raw: bytes) -> bytes:
        return await self.mesh.receive(raw)

    async def _take_ack(self, raw: bytes) -> None:
        await self._outbox.take_ack(raw)

    async def open(self, stack: AsyncExitStack) -> None:
        await self.mesh.load()
        stack.push_async_callback(self._outbox.close)
        stack.push_async_callback(self._datagrams.close)
        stack.push_async_callback(self.liveness.close)

    async def listen(self, host: str, port: int) -> None:
        """For datagrams, beside the door of this number."""
        await self._datagrams.open(host, port)

    def link_up(self, peer: str) -> None:
        """What waits for this peer can go now."""
        self._outbox.nudge(peer)
        self.liveness.link_up(peer)

    def link_lost(self, peer: str) -> None:
        log.info("link lost", peer=peer)
        self.liveness.link_lost(peer)

    async def run(self) -> None:
        """Deliver to every peer of the roster, compare notes with each, and look whether they are there, for
        ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(serve_each_peer(self._trust, self._clock, "peer", self._serve))
            group.create_task(self.liveness.run(), name="liveness")

    async def _serve(self, peer: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._links.keep(peer))
            group.create_task(self._outbox.deliver(peer))
            group.create_task(self._notes.compare(peer))
