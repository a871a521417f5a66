"""Looks whether peers are there, asks others to look, and tells them: what it finds, `silence` judges.

Every second a few peers in turn are asked. One that does not answer in time is looked for by all ways at once:
over the kept connection, over a new one, and by others. A connection that ended starts that at once: where the
host then refuses, the process is gone, which all find within milliseconds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import structlog

from agent.peers.absences import Absences
from agent.peers.asked import Operations, Patience
from agent.peers.hearsay import (
    LEAVING,
    MAX_BYTES,
    MAX_NAMES,
    TRY,
    UNREACHED,
    Tried,
    Try,
    Unreached,
)
from agent.peers.links import Links
from agent.peers.pings import PATH as PING
from agent.peers.pings import Found, Pings, settle
from agent.peers.silence import TICK_S, Beat, RoundTrips, Silence
from agent.peers.transport import Transport
from agent.peers.turns import Turns
from agent.trust import Trust
from shared.clock import Clock
from shared.errors import NotFoundError, RollcallError
from shared.report import Absence

log = structlog.get_logger()

PATIENCE_S = 0.8
"""For a first answer over a network that loses little: TCP sends again after 0.2 and 0.6 s. Where every tenth packet
is lost, so one look in a hundred finds nothing, and twice as long is waited for an answer by any way."""
LONGEST_PATIENCE_S = 3.0
WIDE_S = 6.0
"""From its beginning, where several that were there do not answer in time: then it is rather the network that has
become slow, and all answers are under way."""
HELP_S = 10.0
TOLD = 2
"""So many peers are told at once whom this node does not reach; they answer with what they found."""
ALERTED = 16
"""So many at least begin to look as well where one does not answer in time."""
ANSWERED = 2
"""Where others told it before, so many of them are told instead."""
AT_ONCE_S = 0.05
"""How long a first answer is waited for where another did not get any."""
CONFIRMED_S = 0.15
"""How long another's word is waited for before others are asked, where the host has refused."""
FAR_EVERY_S = 10.0
"""How often one of those is asked with whom a node of a large fleet keeps no connection: each costs a handshake, of
some 9 kB. Those who keep one with it look every few seconds, and tell all."""
GOODBYE_S = 0.5


class Liveness:
    """`on_change` is called when a peer goes away or comes back."""

    def __init__(
        self,
        trust: Trust,
        transport: Transport,
        links: Links,
        clock: Clock,
        *,
        probes: int,
        on_change: Callable[[], None],
    ) -> None:
        self._trust, self._transport, self._links, self._clock = trust, transport, links, clock
        self._probes = probes
        self._silence = Silence(trust.name, clock.monotonic())
        self._absences = Absences(trust, self._silence, clock, on_change)
        self._pings = Pings(transport, links.get, clock, self._answered)
        self._trips = RoundTrips(PATIENCE_S, LONGEST_PATIENCE_S)
        self._beat = Beat(clock.monotonic(), clock.now())
        self._near, self._far = Turns(), Turns()
        self._far_at = clock.monotonic()
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._unanswered: set[str] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._telling = False
        self._returned: dict[str, float] = {}
        self._to_tell: set[str] = set()
        self._stated: dict[str, set[str]] = {}
        """Whom each reporter named last. What it found when it was asked to try is not taken back by a statement
        from before it came to an end itself."""
        self._doubted: set[str] = set()
        """To be named to others as not answering in time, with the next statement."""
        self._patience = Patience(clock)
        """With questions and statements, and with looks that they cause."""
        self._closing = False

    def operations(self) -> Operations:
        """For the door for peers: what they may ask, and how much they may say."""
        return {
            ("GET", PING): (self._pong, 0),
            ("POST", TRY): (self._try, MAX_BYTES),
            ("POST", UNREACHED): (self._hear, MAX_BYTES),
            ("POST", LEAVING): (self._hear_goodbye, 0),
        }

    def is_away(self, peer: str) -> bool:
        return peer in self._absences

    def away(self) -> dict[str, Absence]:
        """The peers that are not there."""
        return self._absences.shown()

    def round_trip(self, peer: str) -> float | None:
        """Smoothed, in seconds; None for a peer that has not answered yet."""
        return self._trips.of(peer)

    def link_up(self, peer: str) -> None:
        self._silence.reached(peer, self._clock.monotonic())
        self._absences.review()

    def link_lost(self, peer: str) -> None:
        """A hint: a process that is killed closes its connections."""
        if peer in self._trust.peer_names():
            self._look(peer)

    async def run(self) -> None:
        """A few looks a second, for ever."""
        roster = self._trust.roster
        while True:
            self._doubt_if_late()
            self._beat = Beat(self._clock.monotonic(), self._clock.now())
            if roster is not self._trust.roster:
                roster = self._trust.roster
                self._silence.keep_only(self._trust.peer_names())
                self._stated.clear()
                self._returned.clear()
                self._trips.keep_only(self._trust.peer_names())
            for peer in self._next():
                self._look(peer)
            now = self._clock.monotonic()
            if self._silence.cut_off(self._trust.peer_names(), now):
                self._silence.doubt(now)
            self._absences.review()
            await self._clock.sleep(TICK_S)

    def _next(self) -> list[str]:
        """Who was away and has a connection again does not wait for its turn."""
        names, chosen = self._trust.peer_names(), self._links.overlay.chosen()
        found = [peer for peer in self._near.draw(chosen, self._probes) if not self._hears(peer)]
        now = self._clock.monotonic()
        if not self._links.overlay.is_full and now >= self._far_at:
            self._far_at = now + FAR_EVERY_S
            found += self._far.draw([name for name in names if name not in chosen], 1)
        back = [name for name in names if name in self._absences and self._links.get(name)]
        return list(dict.fromkeys([*found, *back[: self._probes]]))

    def _hears(self, peer: str) -> bool:
        """Its own question in the last half of a round has shown that it is there: of two that look for each other
        one is enough."""
        link, round_s = self._links.get(peer), TICK_S * len(self._near) / self._probes
        if link is None or self._silence.misses(peer) or peer in self._absences:
            return False
        if (quiet := link.quiet_for()) >= round_s / 2:
            return False
        self._silence.reached(peer, self._clock.monotonic() - quiet)
        return True

    def _doubt_if_late(self) -> bool:
        """After a hang or a sleep of its own this node has missed answers that did come."""
        beat = Beat(self._clock.monotonic(), self._clock.now())
        doubt = self._beat.doubt(beat.monotonic, beat.wall)
        if doubt == 0:
            return False
        log.info("this node was away itself and accuses nobody", for_s=doubt)
        self._silence.doubt(beat.monotonic + doubt)
        self._beat = beat
        self._absences.review()
        return True

    def _look(self, peer: str, *, hinted: bool = False) -> None:
        """`hinted`: another did not get an answer in time, so this one asks all soon."""
        if self._closing or peer in self._looking:
            return
        task = asyncio.get_running_loop().create_task(
            self._look_for(peer, hinted=hinted), name=f"look-{peer}"
        )
        self._looking[peer] = task
        task.add_done_callback(lambda _: self._looking.pop(peer, None))

    async def _look_for(self, peer: str, *, hinted: bool) -> None:
        began, patience = self._clock.monotonic(), self._trips.patience(peer)
        first = AT_ONCE_S if hinted else patience
        found, link = Found.NOTHING, self._pings.by_link(peer)
        if not self._transport.has_way(peer):
            self._pings.by_dial(peer)
        if link is not None:
            found = await settle(link, first)
        if found is Found.NOTHING and self._links.get(peer) is None:
            found = await settle(self._pings.by_dial(peer), first)
        if found in (Found.ANSWERED, Found.UNFOUND):
            return
        if found is Found.REFUSED:
            self._missed(peer, began, refused=True)
            await self._clock.sleep(CONFIRMED_S)
            if peer in self._absences:
                return
        elif not hinted and peer not in self._absences:
            self._doubted.add(peer)
            self._tell(self._helpers(peer, ALERTED))
        self._unanswered.add(peer)
        try:
            if not await self._by_all_ways(peer, began, 2 * patience):
                self._missed(peer, began)
        finally:
            self._unanswered.discard(peer)

    async def _by_all_ways(self, peer: str, began: float, patience: float) -> bool:
        """Whether this node or one that it asked has reached the peer since."""
        link = self._pings.by_link(peer)
        ways: set[asyncio.Task[Any]] = {self._pings.by_dial(peer)} | ({link} if link else set())
        ways |= {self._spawn(self._ask_to_try(each, peer)) for each in self._helpers(peer)}
        until = self._clock.monotonic() + patience
        while ways:
            if sum(each not in self._absences for each in self._unanswered) > 1:
                until = max(until, began + WIDE_S)
            if (left := until - self._clock.monotonic()) <= 0:
                break
            _, ways = await asyncio.wait(ways, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if self._silence.was_reached(peer, began, self._trust.peer_names()):
                return True
        return False

    def _helpers(self, peer: str, count: int | None = None) -> list[str]:
        """Some of those that this node is connected with, in no order."""
        names = [
            name
            for name in self._trust.peer_names()
            if name != peer
            and name not in self._absences
            and not self._silence.misses(name)
            and self._links.get(name) is not None
        ]
        return random.sample(names, min(len(names), count or self._probes))

    async def _ask_to_try(self, helper: str, peer: str) -> None:
        began = self._clock.monotonic()
        try:
            raw = await self._transport.ask(
                helper, "POST", TRY, data=Try(peer=peer).canonical(), timeout_s=HELP_S
            )
            reached = Tried.from_bytes(raw).reached
        except RollcallError as error:
            log.debug("not tried", peer=peer, by=helper, reason=str(error))
            return
        if reached:
            self._silence.reached(peer, began, by=helper)
        elif reached is not None:
            self._silence.missed(peer, began, by=helper)
        self._absences.review()

    def _answered(self, peer: str, seconds: float) -> None:
        """What was asked in a silence says how long that was, not how long the next answer will take."""
        now = self._clock.monotonic()
        if peer in self._absences or self._silence.misses(peer):
            self._returned[peer] = now
            self._absences.review()
        elif now - seconds >= self._returned.get(peer, 0.0):
            self._trips.took(peer, seconds)
        self._silence.reached(peer, now)

    def _missed(self, peer: str, began: float, *, refused: bool = False) -> None:
        names = self._trust.peer_names()
        if self._doubt_if_late() or self._silence.was_reached(peer, began, names):
            return
        self._silence.missed(peer, began, refused=refused)
        self._absences.review()
        if peer in self._absences or self._silence.has_left(peer):
            return
        reporters = self._silence.reporters(peer, names)[:ANSWERED]
        if not self._links.overlay.is_full:
            self._tell(self._helpers(peer, len(names)))
        else:
            self._tell(reporters or self._helpers(peer, TOLD))

    def _tell(self, peers: Iterable[str]) -> None:
        """Soon, so that what is found together is told together."""
        self._to_tell.update(peers)
        if self._to_tell and not (self._telling or self._closing):
            self._telling = True
            self._spawn(self._tell_some())

    async def _tell_some(self) -> None:
        await asyncio.sleep(0)
        self._telling = False
        said = self._statement()
        doubted, self._doubted = self._doubted, set()
        said = said.model_copy(update={"doubted": sorted(doubted)[:MAX_NAMES]})
        told, self._to_tell = self._to_tell, set()
        if said.unreached or said.doubted:
            await asyncio.gather(*(self._tell_one(peer, said) for peer in told))

    def _statement(self) -> Unreached:
        """The latest findings first: what has long been known is told in its turn."""
        now, names = self._clock.monotonic(), self._trust.peer_names()
        ages = {peer: self._silence.age(peer, now) for peer in self._silence.unreached(names)}
        latest = sorted(ages.items(), key=lambda each: each[1])[:MAX_NAMES]
        unsure = len(ages) > MAX_NAMES or self._silence.doubts(now)
        return Unreached(unreached=dict(latest), unsure=unsure)

    async def _tell_one(self, peer: str, said: Unreached) -> None:
        began = self._clock.monotonic()
        try:
            raw = await self._transport.ask(
                peer, "POST", UNREACHED, data=said.canonical(), timeout_s=HELP_S
            )
            answer = Unreached.from_bytes(raw)
        except RollcallError as error:
            log.debug("not told", peer=peer, reason=str(error))
            return
        for name in answer.reached:
            self._silence.reached(name, began, by=peer)
        self._take(peer, answer)

    def _take(self, reporter: str, said: Unreached) -> list[str]:
        """Returns those of them that this node has reached since the other's look began."""
        now, names = self._clock.monotonic(), set(self._trust.peer_names()) - {reporter}
        reached = []
        for name in names & said.unreached.keys():
            self._silence.missed(name, now - said.unreached[name], by=reporter)
            if self._silence.was_reached(name, now - said.unreached[name]):
                reached.append(name)
            elif not self._silence.misses(name):
                self._look_for_another(name, reporter)
        if not said.unsure:
            for name in self._stated.get(reporter, set()) - said.unreached.keys():
                self._silence.withdrew(name, now, by=reporter)
            self._stated[reporter] = names & said.unreached.keys()
        for name in names.intersection(said.doubted):
            self._look_for_another(name, reporter)
        self._absences.review()
        return reached

    def _look_for_another(self, name: str, reporter: str) -> None:
        if self._patience.has(f"look {reporter}"):
            self._look(name, hinted=True)

    async def _pong(self, *_: object) -> bytes:
        return b"{}"

    async def _try(self, asker: str, __: Mapping[str, str], body: bytes) -> bytes:
        """Directly: who was asked asks nobody else."""
        self._patience.spend(asker)
        peer, began = Try.from_bytes(body).peer, self._clock.monotonic()
        if peer not in self._trust.peer_names():
            raise NotFoundError(f"the roster names no {peer}")
        link, dial = self._pings.by_link(peer), self._pings.by_dial(peer)
        ways = {dial} | ({link} if link else set())
        until = began + 1.5 * self._trips.patience(peer)
        while ways and (left := until - self._clock.monotonic()) > 0:
            _, ways = await asyncio.wait(ways, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if self._silence.was_reached(peer, began):
                return Tried(reached=True).canonical()
        unfound = link is None and dial.done() and dial.result() is Found.UNFOUND
        return Tried(reached=None if unfound else False).canonical()

    async def _hear(self, reporter: str, _: Mapping[str, str], body: bytes) -> bytes:
        self._patience.spend(reporter)
        reached = self._take(reporter, Unreached.from_bytes(body))
        return self._statement().model_copy(update={"reached": sorted(reached)}).canonical()

    async def _hear_goodbye(self, peer: str, *_: object) -> bytes:
        self._silence.left(peer, self._clock.monotonic())
        self._absences.review()
        return b"{}"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)
        return task

    async def leave(self) -> None:
        """Tell everybody that this node goes, so that nobody looks for it."""
        self._closing = True
        told = [peer for peer in self._trust.peer_names() if self._is_near(peer)]
        await asyncio.gather(*(self._say_goodbye(peer) for peer in told))

    def _is_near(self, peer: str) -> bool:
        """Linked; where not all are, a peer whose address is known to answer is near enough."""
        sparse = not self._links.overlay.is_full
        return self._links.get(peer) is not None or (sparse and self._transport.has_way(peer))

    async def _say_goodbye(self, peer: str) -> None:
        try:
            await self._transport.ask(peer, "POST", LEAVING, timeout_s=GOODBYE_S)
        except RollcallError as error:
            log.debug("no goodbye", peer=peer, reason=str(error))

    async def close(self) -> None:
        self._closing = True
        tasks = [*self._looking.values(), *self._busy]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pings.close()
        self._absences.close()
