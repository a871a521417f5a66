"""The roster from peer to peer: who hears of a newer one hands it on at once, so that a revocation
reaches every node that any informed node can reach, with the coordinator off (fault 27)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from agent.peers.each import serve_each_peer
from agent.peers.transport import Transport
from agent.trust import Trust
from shared.backoff import Backoff
from shared.clock import Clock, wait_at_most
from shared.errors import RollcallError, UntrustedError
from shared.roster import MAX_ROSTER_BYTES
from shared.wire import Wire

log = structlog.get_logger()

FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 5.0
OFFSETS_KEPT_S = 600.0
LONGEST_TRIP_S = 5.0
"""Of a round trip that still tells the time; the error is up to half of it."""


class RosterNumber(Wire):
    """Which roster a node has, and its wall time when it said so; an older agent says no time."""

    number: tuple[int, int]
    at: float | None = None


class Gossip:
    """`on_newer_fleet` is told a peer whose roster goes with a fleet document that this node lacks; it
    fetches the metadata from there. `wanted` are the peers to talk with, the rest hears it from them; `every_s` is how
    often each is asked for what it has."""

    def __init__(
        self,
        trust: Trust,
        transport: Transport,
        clock: Clock,
        on_newer_fleet: Callable[[str], Awaitable[None]],
        wanted: Callable[[], list[str]],
        *,
        every_s: float,
    ) -> None:
        self._trust, self._transport, self._clock, self._wanted = trust, transport, clock, wanted
        self._on_newer_fleet, self._every_s = on_newer_fleet, every_s
        self._news: dict[str, asyncio.Event] = {}
        self._offsets: dict[str, tuple[float, float]] = {}
        """By peer: how far its clock was ahead, and when (monotonic) that was measured."""
        trust.listen(self._tell_all)

    def _tell_all(self) -> None:
        for event in self._news.values():
            event.set()

    def offsets(self) -> dict[str, float]:
        """How far the clock of each live peer is ahead of this node's, in seconds, give or take half of a round
        trip; of those that answered within ten minutes."""
        since = self._clock.monotonic() - OFFSETS_KEPT_S
        names = self._trust.peer_names()
        return {
            name: offset
            for name, (offset, at) in self._offsets.items()
            if at >= since and name in names
        }

    async def run(self) -> None:
        """One conversation with each of the wanted peers, for ever."""
        await serve_each_peer(self._trust, self._clock, "roster", self._talk, self._wanted)

    async def _talk(self, peer: str) -> None:
        news = self._news.setdefault(peer, asyncio.Event())
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        while True:
            news.clear()
            try:
                await self.exchange(peer)
                backoff.succeeded()
                pause = self._every_s
            except (RollcallError, OSError) as error:
                log.debug("roster not exchanged", peer=peer, reason=str(error))
                pause = backoff.failed()
            await wait_at_most(news, pause)

    async def exchange(self, peer: str) -> None:
        """Ask what the peer has; then give it ours, or take its own, whichever is newer."""
        asked = self._clock.now()
        raw = await self._transport.ask(peer, "GET", "/v1/peer/roster/number")
        said, answered = RosterNumber.from_bytes(raw), self._clock.now()
        if said.at is not None and 0 <= answered - asked <= LONGEST_TRIP_S:
            self._offsets[peer] = (said.at - (asked + answered) / 2, self._clock.monotonic())
        theirs, ours = said.number, self._trust.roster.number
        if theirs < ours and self._trust.roster_raw:
            await self._transport.ask(peer, "POST", "/v1/peer/roster", data=self._trust.roster_raw)
        elif theirs > ours:
            if theirs[0] > self._trust.fleet.version:
                await self._on_newer_fleet(peer)
            found = await self._transport.ask(
                peer, "GET", "/v1/peer/roster", max_answer=MAX_ROSTER_BYTES
            )
            await self._trust.accept_roster(found)

    async def receive(self, peer: str, raw: bytes) -> RosterNumber:
        """A roster that a peer hands over. Raises UntrustedError for one that does not hold."""
        try:
            await self._trust.accept_roster(raw)
        except UntrustedError:
            await self._on_newer_fleet(peer)
            await self._trust.accept_roster(raw)
        return self.number()

    def number(self) -> RosterNumber:
        return RosterNumber(number=self._trust.roster.number, at=self._clock.now())

    def roster(self) -> bytes:
        return self._trust.roster_raw
