"""What ties this node to its fleet: the way to coordinator and peers, what operators signed, its
certificate, and the roster that peers hand on. A change of one renews the others."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from functools import partial

from agent.config import PeerConfig
from agent.coordinator import Coordinator
from agent.dialler import Dialler
from agent.layout import Layout
from agent.peers.directory import Directory
from agent.peers.gossip import Gossip
from agent.peers.links import Links
from agent.peers.overlay import Overlay
from agent.peers.transport import Transport
from agent.releases import Releases, Source
from agent.renewal import Renewal
from agent.trust import Trust
from shared.clock import Clock
from shared.fleet import FleetDocument
from shared.listener import Server
from shared.tls import server_context
from shared.tufclient import TufClient

MAX_SOURCES = 3
"""Peers asked for release metadata when the coordinator is away."""


class Membership:
    """Opened on the daemon's exit stack; `door` is the listener for peers once there is one."""

    def __init__(
        self,
        layout: Layout,
        trust: Trust,
        directory: Directory,
        clock: Clock,
        config: PeerConfig,
    ) -> None:
        self._layout, self._trust, self._directory = layout, trust, directory
        self._dialler = Dialler(layout.tls)
        self.coordinator = Coordinator(self._dialler, trust.identity.url)
        overlay = Overlay(trust, links=config.links, full_mesh_below=config.full_mesh_below)
        self.links = Links(trust, directory, self._dialler, clock, overlay)
        self.transport = Transport(directory, self._dialler, self.links.get)
        tuf = TufClient(layout.tuf)
        self.releases = Releases(tuf, self.coordinator, self._sources, clock, self._take_fleet)
        self.renewal = Renewal(layout, trust, self.coordinator, clock, self._renew_connections)
        self.gossip = Gossip(
            trust,
            self.transport,
            clock,
            self._fetch_from,
            overlay.chosen,
            every_s=config.sync_every,
        )
        self.door: Server | None = None

    async def open(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._dialler.close)
        stack.callback(self.releases.close)
        await self.releases.load()

    @property
    def name(self) -> str:
        return self._trust.name

    def offsets(self) -> dict[str, float]:
        """How far each peer's clock is ahead of this node's, in seconds, where that is known."""
        return self.gossip.offsets()

    @property
    def alerts(self) -> list[str]:
        """What people must see to; nothing else depends on it."""
        revoked = ["this node was revoked"] if self._trust.revoked else []
        return [*revoked, *self.releases.alerts, *self.renewal.alerts]

    def _sources(self) -> list[Source]:
        """Peers that can hand on release metadata, in no order."""
        names = [name for name in self._trust.peer_names() if self._directory.candidates(name)]
        random.shuffle(names)
        return [partial(self.transport.tuf, name) for name in names[:MAX_SOURCES]]

    async def _fetch_from(self, peer: str) -> None:
        await self.releases.refresh(partial(self.transport.tuf, peer))

    async def _take_fleet(self, document: FleetDocument) -> None:
        if await self._trust.accept_fleet(document):
            await self._renew_connections()

    async def _renew_connections(self) -> None:
        """New certificate or authorities: both ends are opened anew, and old connections go."""
        await self._dialler.renew()
        self.links.renew()
        if self.door is not None:
            self.door.renew(server_context(self._layout.tls, require_client=True))
