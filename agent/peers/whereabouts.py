"""What peers say about where the others are: whoever reaches one node of its fleet finds them all, without mDNS and
without the coordinator.

A node tells where it can be reached itself, where it reached others lately, and what these said of themselves. All
of it is hints: a peer that lies costs a few dials (DESIGN.md, 6).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from agent.peers.directory import Directory, Found, parse_address
from agent.peers.interfaces import reachable_at
from agent.peers.links import Links
from shared.backoff import Backoff
from shared.clock import Clock, wait_at_most
from shared.errors import RollcallError
from shared.report import MAX_ADDRESSES, Addresses, NodeAddresses
from shared.wire import Wire

log = structlog.get_logger()

PATH = "/v1/peer/addresses"
MAX_TOLD = 1024
MAX_ANSWER = 512 << 10
FIRST_ASK_S, LONGEST_ASK_S = 0.5, 10.0
"""Between two rounds while others are missing: who has just come up may not know much yet."""
MAX_ASKED = 3
"""Peers that are asked again each time while others are missing."""
TIMEOUT_S = 5.0


class Told(Wire):
    """`own`: where the one who answers can be reached. `others`: where it has reached them."""

    own: Addresses = []
    others: dict[str, Addresses] = {}


class Whereabouts:
    """`own` gives this node's addresses; `on_found` is called with a peer's name when one was learnt."""

    def __init__(
        self,
        directory: Directory,
        links: Links,
        wanted: Callable[[], list[str]],
        own: Callable[[], list[str]],
        on_found: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._directory, self._links, self._clock = directory, links, clock
        self._wanted, self._own, self._on_found = wanted, own, on_found
        self._of_themselves: dict[str, list[str]] = {}
        """What linked peers said of themselves, over mutual TLS."""
        self._fresh: set[str] = set()
        self._news = asyncio.Event()

    def link_up(self, peer: str) -> None:
        self._fresh.add(peer)
        self._news.set()

    async def run(self) -> None:
        """Ask who is newly linked, and while somebody is missing, a few others from time to time."""
        backoff = Backoff(FIRST_ASK_S, LONGEST_ASK_S)
        while True:
            await wait_at_most(self._news, backoff.failed())
            if self._news.is_set():
                self._news.clear()
                backoff.succeeded()
            await asyncio.gather(*(self._ask(peer) for peer in self._to_ask()))

    def _to_ask(self) -> list[str]:
        linked = [name for name in self._wanted() if self._links.get(name) is not None]
        asked = [name for name in linked if name in self._fresh]
        self._fresh.clear()
        if not asked and self._misses_somebody():
            asked = random.sample(linked, min(MAX_ASKED, len(linked)))
        return asked

    def _misses_somebody(self) -> bool:
        """With whom it should be linked, or of whom nothing is known."""
        chosen = set(self._links.overlay.chosen())
        return any(
            self._links.get(name) is None
            and (name in chosen or not self._directory.candidates(name))
            for name in self._wanted()
        )

    async def _ask(self, peer: str) -> None:
        link = self._links.get(peer)
        if link is None:
            return
        try:
            raw = await link.ask("GET", PATH, timeout_s=TIMEOUT_S)
            self._take(peer, Told.from_bytes(raw, max_bytes=MAX_ANSWER))
        except (RollcallError, OSError) as error:
            log.debug("addresses not told", peer=peer, reason=str(error))

    def _take(self, peer: str, told: Told) -> None:
        self._of_themselves[peer] = told.own
        self._learn(peer, told.own)
        for text in told.own:
            if (hint := parse_address(text, Found.PEER)) is not None:
                self._directory.place(peer, hint)
        wanted = set(self._wanted())
        for gone in self._of_themselves.keys() - wanted:
            del self._of_themselves[gone]
        for name in wanted & told.others.keys() - {peer}:
            self._learn(name, told.others[name])

    def _learn(self, name: str, addresses: list[str]) -> None:
        before = self._directory.candidates(name)
        for text in addresses:
            if (hint := parse_address(text, Found.PEER)) is not None:
                self._directory.learn(name, hint)
        if self._directory.candidates(name) != before and self._links.get(name) is None:
            self._on_found(name)

    def take_list(self, heard: NodeAddresses) -> None:
        """The coordinator's list, whole."""
        for name in self._wanted():
            parsed = (parse_address(text, Found.COORDINATOR) for text in heard.nodes.get(name, []))
            hints = [hint for hint in parsed if hint is not None]
            new = self._directory.replace(name, Found.COORDINATOR, hints)
            if new and self._links.get(name) is None:
                self._on_found(name)

    def tell(self, asker: str) -> Told:
        others = {name: self._known_of(name) for name in self._wanted()[:MAX_TOLD] if name != asker}
        return Told(own=self._own(), others={name: a for name, a in others.items() if a})

    def _known_of(self, name: str) -> list[str]:
        """Only what was proved: where it answered, and what it said itself."""
        good = [
            text
            for hint in self._directory.good(name)
            for text in reachable_at([hint.host], hint.port)
        ]
        return list(dict.fromkeys([*good, *self._of_themselves.get(name, [])]))[:MAX_ADDRESSES]
