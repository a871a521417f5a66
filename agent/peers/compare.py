"""Peers on one release compare what they are: who differs from the others, for longer than a moment, turns red.

A node can be green by its own word and yet not be what its release says: its tree was changed and sealed anew,
its lock was swapped, its Doctor sees what no other sees. Only its peers can tell.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from agent.peers.each import serve_each_peer
from agent.peers.transport import Transport
from agent.trust import Trust
from shared.clock import Clock
from shared.comparing import mismatch, other_platform
from shared.errors import RollcallError
from shared.messages import RedKind, Verdict
from shared.readiness import ReadinessDocument, SeenReadiness
from shared.wire import short

log = structlog.get_logger()

LOOK_EVERY_S: Final = 30.0
LOOKS: Final = 3
"""At least so many in the time that a mismatch has to last."""
JITTER: Final = 0.2
TREE: Final = "tree_sha256"
FRESH_LOOKS: Final = 3
"""What was seen of a peer counts for so many looks."""
READ_AGAIN_S: Final = 600.0
"""Before a mismatch is believed this node looks at itself once more, at most every ten minutes."""


@dataclass(frozen=True)
class Mismatch:
    """`peer` is one that this node differs from, `words` say in what."""

    peer: str
    words: str


@dataclass(frozen=True)
class Finding:
    """`comparable` is False where no peer can be compared with: nothing follows from that."""

    comparable: bool
    mismatch: Mismatch | None = None


Documents = Mapping[str, ReadinessDocument]


def judge_own(own: ReadinessDocument, peers: Documents) -> Finding:
    """Whether this node is one that differs. `peers` is what was seen of them lately. Only green documents about
    this node's release count: another release differs by right, and what is not green is called so already.

    With a majority (this node counted) it is who does not agree with it; without one, whoever differs from
    anybody. Trees are compared with those of the same platform, all else with everybody: a node that could
    agree with two that differ from each other would be no voter.
    """
    release = own.comparable.release
    if own.status is not Verdict.GREEN or release is None:
        return Finding(comparable=False)
    seen = {
        name: document
        for name, document in sorted(peers.items())
        if document.status is Verdict.GREEN and document.comparable.release == release
    }
    near = {name: each for name, each in seen.items() if not other_platform(own, each)}
    for voters, aside in ((near, None), (seen, TREE)):
        if (found := _outvoted(own, voters, aside)) is not None:
            return Finding(comparable=True, mismatch=found)
    return Finding(comparable=bool(seen))


def _outvoted(own: ReadinessDocument, voters: Documents, aside: str | None) -> Mismatch | None:
    """Who of those that this node is not like has most who are like him. `aside` is a field left out."""

    def differ(a: ReadinessDocument, b: ReadinessDocument) -> list[str]:
        found = mismatch(a, b, (a.node, b.node))
        return [each.words for each in found if each.field != aside]

    differing = [name for name, each in voters.items() if differ(own, each)]
    alike = 1 + len(voters) - len(differing)
    if not differing or 2 * alike > 1 + len(voters):
        return None
    crowds = {
        name: sum(not differ(voters[name], other) for other in voters.values())
        for name in differing
    }
    peer = max(crowds, key=lambda name: crowds[name])
    return Mismatch(peer, "; ".join(differ(own, voters[peer])))


class Reds(Protocol):
    """The part of this node's alarms that is needed here."""

    async def raise_red(self, kind: RedKind, reason: str, release: str | None) -> None: ...
    async def end_reds(self, kind: RedKind, reason: str, *, but: str | None = None) -> None: ...


@dataclass
class _Seen:
    document: ReadinessDocument
    tag: str
    at: float


class Comparer:
    """`own` is this node's document, `settled` says whether no upgrade moves it, `read_again` reads anew what is
    compared. `lasts_s` is how long a mismatch has to last before it is a red."""

    def __init__(
        self,
        trust: Trust,
        transport: Transport,
        clock: Clock,
        reds: Reds,
        own: Callable[[], ReadinessDocument],
        settled: Callable[[], bool],
        read_again: Callable[[], Awaitable[object]],
        *,
        lasts_s: float,
    ) -> None:
        self._trust, self._transport, self._clock, self._reds = trust, transport, clock, reds
        self._own, self._settled, self._read_again = own, settled, read_again
        self._lasts_s = lasts_s
        self._every_s = min(LOOK_EVERY_S, lasts_s / LOOKS)
        self._seen: dict[str, _Seen] = {}
        self._since: tuple[str | None, float] | None = None
        """The release about which this node differs, and since when, on the monotonic clock."""
        self._read_again_at: float | None = None
        self._judging = asyncio.Lock()

    async def run(self) -> None:
        """One conversation with each peer of the roster, linked or not, for ever."""
        await serve_each_peer(
            self._trust, self._clock, "compare", self._watch, self._trust.peer_names
        )

    async def _watch(self, peer: str) -> None:
        try:
            while True:
                spread = 1 + random.uniform(-JITTER, JITTER)  # noqa: S311 - so that peers do not ask at once
                await self._clock.sleep(self._every_s * spread)
                await self.look(peer)
        finally:
            self._seen.pop(peer, None)

    async def look(self, peer: str) -> None:
        """Ask one peer, and judge this node by all that was seen lately."""
        try:
            await self._fetch(peer)
            async with self._judging:
                await self._judge()
        except (RollcallError, OSError) as error:
            log.debug("not compared", peer=peer, reason=str(error))

    async def _fetch(self, peer: str) -> None:
        known = self._seen.get(peer)
        params = {} if known is None else {"known": known.tag}
        raw = await self._transport.ask(peer, "GET", "/v1/peer/readiness", params=params)
        answer, now = SeenReadiness.from_bytes(raw), self._clock.monotonic()
        if answer.document is not None:
            self._seen[peer] = _Seen(answer.document, answer.tag, now)
        elif known is not None and known.tag == answer.tag:
            known.at = now

    def _lately(self) -> dict[str, ReadinessDocument]:
        oldest = self._clock.monotonic() - FRESH_LOOKS * self._every_s
        return {name: seen.document for name, seen in self._seen.items() if seen.at >= oldest}

    async def _judge(self) -> None:
        if not self._settled():
            self._since = None
            return
        own, now = self._own(), self._clock.monotonic()
        release = own.comparable.release
        if release is not None:
            reason = "this node has left that release"
            await self._reds.end_reds(RedKind.MISMATCH, reason, but=release)
        finding = judge_own(own, self._lately())
        if finding.mismatch is None:
            self._since = None
            if finding.comparable:
                reason = "this node is again what its peers on the same release are"
                await self._reds.end_reds(RedKind.MISMATCH, reason)
            return
        if self._since is None or self._since[0] != release:
            self._since = release, now
            log.info("differs", peer=finding.mismatch.peer, words=finding.mismatch.words)
            await self._be_sure(now)
        elif now - self._since[1] >= self._lasts_s:
            await self._reds.raise_red(RedKind.MISMATCH, _reason(finding.mismatch), release)

    async def _be_sure(self, now: float) -> None:
        """Doctor reads once an hour: what it saw an hour ago may be what differs."""
        if self._read_again_at is None or now - self._read_again_at >= READ_AGAIN_S:
            self._read_again_at = now
            await self._read_again()


def _reason(found: Mismatch) -> str:
    return short(f"this node differs from {found.peer} on the same release: {found.words}")
