"""Puts together how this node finds its peers: what operators wrote, mDNS, the coordinator's list, what peers say,
and what was good before. Each alone is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from agent.config import PeerConfig, parse_static
from agent.layout import Layout
from agent.peers.asked import Operations
from agent.peers.directory import Directory, Found, Hint
from agent.peers.interfaces import (
    Reader,
    choose,
    reachable_at,
    read_interfaces,
    told_addresses,
)
from agent.peers.links import Links
from agent.peers.listing import Looked, PeersReport, peer_line
from agent.peers.mdns import Discovery
from agent.peers.names import Names
from agent.peers.remembered import Memory
from agent.peers.whereabouts import PATH as ADDRESSES
from agent.peers.whereabouts import Whereabouts
from agent.trust import Trust
from shared.clock import Clock
from shared.errors import RollcallError
from shared.report import NodeAddresses

NUDGE_EVERY_S = 1.0
"""At most so often a new address makes a peer be dialled at once: nobody on the network sets the pace."""
READ_EVERY_S = 5.0
PING = ("GET", "/v1/peer/roster/number")
PING_TIMEOUT_S = 2.0


class Discovering:
    """`on_found` is told a peer of which an address was learnt. `has_list`: whether the coordinator is there."""

    def __init__(  # noqa: PLR0913 - one part out of everything that it joins
        self,
        config: PeerConfig,
        layout: Layout,
        trust: Trust,
        directory: Directory,
        links: Links,
        clock: Clock,
        *,
        on_found: Callable[[str], None],
        has_list: Callable[[], bool],
        read: Reader = read_interfaces,
    ) -> None:
        self._config, self._trust, self._directory, self._links = config, trust, directory, links
        self._clock, self._on_found, self._has_list, self._read = clock, on_found, has_list, read
        self._nudged: dict[str, float] = {}
        self._own: tuple[float, list[str]] = (-READ_EVERY_S, [])
        self._port = 0
        self._tag = ""
        wanted = trust.peer_names
        self._memory = Memory(layout.addresses, directory, wanted, clock)
        self._names = Names(directory, clock)
        self._whereabouts = Whereabouts(
            directory, links, wanted, self.addresses, self._found, clock
        )
        self._mdns = Discovery(
            directory,
            wanted,
            self._found,
            clock,
            fleet=trust.fleet.fleet,
            name=trust.name,
            read=read,
        )

    async def open(self, stack: AsyncExitStack) -> None:
        """Know what is known without asking anybody."""
        stack.callback(self._names.close)
        for text in self._config.static:
            name, host, port = parse_static(text)
            self._directory.learn(name, Hint(host, port, Found.STATIC))
        await self._memory.load()
        stack.push_async_callback(self._memory.save)
        stack.push_async_callback(self._mdns.stop)

    async def run(self, port: int) -> None:
        """`port` is that of the door for peers."""
        self._port, config = port, self._config
        self.addresses()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._memory.run(), name="addresses-remembered")
            group.create_task(self._names.run(), name="addresses-names")
            group.create_task(self._whereabouts.run(), name="addresses-peers")
            if config.mdns:
                await self._mdns.start(
                    port=port,
                    interfaces=config.interfaces,
                    advertise=config.advertise,
                    host=config.host,
                )
                group.create_task(self._mdns.run(), name="addresses-mdns")

    def _found(self, peer: str) -> None:
        now = self._clock.monotonic()
        if now - self._nudged.get(peer, -NUDGE_EVERY_S) >= NUDGE_EVERY_S:
            self._nudged[peer] = now
            self._links.nudge(peer)
            self._on_found(peer)

    def link_up(self, peer: str) -> None:
        self._whereabouts.link_up(peer)

    @property
    def alerts(self) -> list[str]:
        return self._mdns.alerts

    @property
    def heard_list(self) -> str:
        """The tag of the coordinator's list that this node has."""
        return self._tag

    def take_list(self, heard: NodeAddresses) -> None:
        self._tag = heard.tag
        self._whereabouts.take_list(heard)

    def addresses(self) -> list[str]:
        """Where others can reach this node, as far as it knows."""
        at, known = self._own
        if not self._port or self._clock.monotonic() - at < READ_EVERY_S:
            return known
        config = self._config
        chosen = choose(self._read(), config.interfaces)
        told = told_addresses(chosen, host=config.host, advertise=config.advertise)
        found = reachable_at(told, self._port)
        self._own = (self._clock.monotonic(), found)
        self._directory.is_us(found)
        return found

    def operations(self) -> Operations:
        """What peers may ask for."""
        return {("GET", ADDRESSES): (self._answer, 0)}

    async def _answer(self, peer: str, _: Mapping[str, str], __: bytes) -> bytes:
        """Where everybody is."""
        return self._whereabouts.tell(peer).model_dump_json().encode()

    async def listing(self) -> PeersReport:
        names = sorted(self._trust.peer_names())
        times = dict(zip(names, await asyncio.gather(*map(self._ping, names)), strict=True))
        lines = [
            peer_line(
                self._directory,
                name,
                linked=self._links.get(name) is not None,
                rtt_ms=times[name],
            )
            for name in names
        ]
        return PeersReport(
            node=self._trust.name,
            at=self._clock.now(),
            peers=lines,
            looked=self._looked(),
            addresses=self.addresses(),
            alerts=self.alerts,
        )

    async def _ping(self, peer: str) -> float | None:
        """In ms, over the link; None without one."""
        link, began = self._links.get(peer), self._clock.monotonic()
        if link is None:
            return None
        try:
            await link.ask(*PING, timeout_s=PING_TIMEOUT_S)
        except (RollcallError, OSError):
            return None
        return round((self._clock.monotonic() - began) * 1000, 2)

    def _looked(self) -> Looked:
        return Looked(
            mdns=self._config.mdns,
            trouble=self._mdns.trouble,
            interfaces=self._mdns.interfaces,
            static=len(self._config.static),
            coordinator=self._has_list(),
        )
