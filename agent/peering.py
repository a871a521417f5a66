"""Puts together how this node talks with its peers: messages, their delivery, and comparing notes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from agent.config import PeerConfig
from agent.peers.asked import Operations
from agent.peers.datagrams import Datagrams
from agent.peers.directory import Directory
from agent.peers.each import serve_each_peer
from agent.peers.links import Links
from agent.peers.liveness import Liveness
from agent.peers.mesh import Mesh
from agent.peers.notes import Notes
from agent.peers.outbox import Outbox
from agent.peers.relay import Relay
from agent.peers.spreading import Spreading
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
        self.liveness = Liveness(
            trust, transport, links, clock, probes=config.probes, on_change=on_change
        )
        self._relay = Relay(trust, transport, links, clock, self.liveness.is_away)
        self._outbox = Outbox(
            trust, store, self._relay, directory, self._datagrams, clock, on_change
        )
        self.mesh = Mesh(
            trust,
            store,
            self._outbox,
            clock,
            epoch,
            on_message=self._heard,
            on_change=on_change,
            dropped=dropped,
        )
        self._on_message = on_message
        self._spreading = Spreading(self.mesh, links, directory, self._datagrams)
        self._notes = Notes(self.mesh, transport, clock, every_s=config.sync_every)

    async def _receive(self, raw: bytes) -> bytes:
        return await self.mesh.receive(raw)

    async def _take_ack(self, raw: bytes) -> None:
        await self._outbox.take_ack(raw)

    def _heard(self, message: Message) -> None:
        self._spreading.accepted(message)
        self._on_message(message)

    def operations(self) -> Operations:
        """What peers may ask for."""
        parts = (self.liveness, self._relay, self._spreading)
        return {name: each for part in parts for name, each in part.operations().items()}

    async def open(self, stack: AsyncExitStack) -> None:
        await self.mesh.load()
        stack.push_async_callback(self._outbox.close)
        stack.push_async_callback(self._datagrams.close)
        stack.push_async_callback(self._spreading.close)
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
        """Deliver to every peer of the roster, keep connections with those that were chosen and compare notes with
        each of these, and look whether all are there, for ever."""
        chosen, everybody = self._links.overlay.chosen, self._trust.peer_names
        async with asyncio.TaskGroup() as group:
            for what, serve, wanted in (
                ("link", self._links.keep, chosen),
                ("notes", self._notes.compare, chosen),
                ("outbox", self._outbox.deliver, everybody),
            ):
                serving = serve_each_peer(self._trust, self._clock, what, serve, wanted)
                group.create_task(serving, name=what)
            group.create_task(self.liveness.run(), name="liveness")
