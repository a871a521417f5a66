"""Who is silent, as a function of what this node and others have found. No clock and no network.

All that is kept is the latest moment of each kind of finding, so the order in which findings come does not
matter. Nobody is silent by one reporter: the own finding counts, and another's must be there as well. Times are
seconds of this node's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

NEVER = float("-inf")

SETTLE_S = 3.0
"""After its start a node accuses nobody for so long."""
ALONE_S = 10.0
"""How long a peer must not have answered where nobody else is left to be asked."""
LEAVING_S = 1.0
"""What a peer still answers in the second after its goodbye takes nothing back."""
TICK_S = 1.0
LATE_S = 1.0
"""So much later than planned, and this node suspects itself."""
SHORT_DOUBT_S = 1.0
LONG_LATE_S = 5.0
DOUBT_S = 3.0
"""So long it does; only the shorter time where it was late by less than `LONG_LATE_S`, as on a busy machine."""
JUMP_S = 2.0
"""Wall clock and monotonic clock differ by so much more than before: this machine slept."""


@dataclass
class _Seen:
    """What one node has found about another: when it last answered, when the last look that found nothing began,
    when the last one began that its host refused, and when the node took a finding back."""

    reached: float = NEVER
    missed: float = NEVER
    refused: float = NEVER
    withdrawn: float = NEVER


@dataclass(frozen=True)
class Away:
    """A peer that is not there. `left`: it said goodbye; else it is silent, to this node and to `reporters`."""

    since: float
    left: bool = False
    reporters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beat:
    """When this node last was on time, by both clocks, in seconds."""

    monotonic: float
    wall: float

    def doubt(self, monotonic: float, wall: float) -> float:
        """For how long this node has to doubt itself, in seconds: its loop hung, the process was stopped, or the
        machine slept. The monotonic clock stops in a Mac's sleep, so there only the other one tells."""
        passed = monotonic - self.monotonic
        late = passed - TICK_S
        if late > LONG_LATE_S or abs(wall - self.wall - passed) > JUMP_S:
            return DOUBT_S
        return SHORT_DOUBT_S if late > LATE_S else 0.0


class Silence:
    """Of one node, `me`. The other nodes' findings come in by name; `away` counts those of the roster only."""

    def __init__(self, me: str, started: float) -> None:
        self._me, self._started = me, started
        self._doubt_until = started + SETTLE_S
        self._seen: dict[str, dict[str, _Seen]] = {}
        """About whom, and by whom."""
        self._left: dict[str, float] = {}

    def reached(self, peer: str, at: float, *, by: str | None = None) -> None:
        seen = self._of(by, peer)
        seen.reached = max(seen.reached, at)

    def missed(
        self, peer: str, began: float, *, by: str | None = None, refused: bool = False
    ) -> None:
        """A look that began then found nobody; `refused`: the peer's host said that nobody listens."""
        seen = self._of(by, peer)
        seen.missed = max(seen.missed, began)
        if refused:
            seen.refused = max(seen.refused, began)

    def withdrew(self, peer: str, at: float, *, by: str) -> None:
        """This reporter does not say it any more, and does not say the opposite."""
        seen = self._of(by, peer)
        seen.withdrawn = max(seen.withdrawn, at)

    def left(self, peer: str, at: float) -> None:
        self._left[peer] = max(self._left.get(peer, NEVER), at)

    def doubt(self, until: float) -> None:
        """Every finding of before then counts for nothing: this node may be the one that was away."""
        self._doubt_until = max(self._doubt_until, until)

    def doubts(self, now: float) -> bool:
        return now < self._doubt_until

    def keep_only(self, names: Collection[str]) -> None:
        """Forget whom the roster does not name any more."""
        known = {self._me, *names}
        self._seen = {
            peer: {by: seen for by, seen in found.items() if by in known}
            for peer, found in self._seen.items()
            if peer in known
        }
        self._left = {peer: at for peer, at in self._left.items() if peer in known}

    def _of(self, by: str | None, peer: str) -> _Seen:
        return self._seen.setdefault(peer, {}).setdefault(by or self._me, _Seen())

    def _get(self, by: str, peer: str) -> _Seen:
        return self._seen.get(peer, {}).get(by) or _Seen()

    def _others(self, peer: str, known: frozenset[str]) -> Iterator[tuple[str, _Seen]]:
        """What those that have a say have found about the peer."""
        for by, seen in self._seen.get(peer, {}).items():
            if by in known and by != peer:
                yield by, seen

    def last_reached(self, peer: str) -> float:
        """By this node; its own start for one that has never answered."""
        return max(self._get(self._me, peer).reached, self._started)

    def was_reached(self, peer: str, since: float, by: Collection[str] = ()) -> bool:
        """By this node, or by one of those."""
        return any(self._get(each, peer).reached >= since for each in (self._me, *by))

    def says(self, by: str, peer: str) -> bool:
        """Whether this reporter's last word on the peer is that it does not answer."""
        seen = self._get(by, peer)
        return seen.missed > max(seen.reached, seen.withdrawn, self._doubt_until)

    def misses(self, peer: str) -> bool:
        return self.says(self._me, peer)

    def age(self, peer: str, now: float) -> float:
        """Of the last own look at the peer that found nobody."""
        return now - self._get(self._me, peer).missed

    def unreached(self, peers: Collection[str]) -> list[str]:
        """What this node tells others: who does not answer it, nor whom it has asked to try. Not who left."""
        known = frozenset(peers)
        return [
            peer
            for peer in peers
            if self.misses(peer) and not self._vouched(peer, known) and not self.has_left(peer)
        ]

    def has_left(self, peer: str) -> bool:
        left = self._left.get(peer, NEVER)
        return self._get(self._me, peer).reached < left + LEAVING_S

    def _vouched(self, peer: str, known: frozenset[str]) -> bool:
        """Somebody has reached it since this node began to look in vain."""
        missed = self._get(self._me, peer).missed
        return any(seen.reached > missed for _, seen in self._others(peer, known))

    def reporters(self, peer: str, peers: Collection[str]) -> tuple[str, ...]:
        """Others whose finding is newer than this node's last answer of the peer."""
        after = self._get(self._me, peer).reached
        found = [
            by
            for by, seen in self._others(peer, frozenset(peers))
            if self.says(by, peer) and seen.missed > after
        ]
        return tuple(sorted(found))

    def away(self, peers: Collection[str], now: float) -> dict[str, Away]:
        """Of these peers, those that are not there."""
        known = frozenset(peers)
        found = {peer: Away(self._left[peer], left=True) for peer in peers if self.has_left(peer)}
        for peer in peers:
            if peer in found or not self.misses(peer) or self._vouched(peer, known):
                continue
            if reporters := self.reporters(peer, known):
                found[peer] = Away(self.last_reached(peer), reporters=reporters)
        return found | self._by_one(peers, found, now)

    def _by_one(
        self, peers: Collection[str], found: Collection[str], now: float
    ) -> dict[str, Away]:
        """Where nobody is left who could be asked the own finding has to do, after a longer time. Of several that
        do not answer only one whose host refuses: else it is this node that is cut off."""
        rest = [peer for peer in peers if peer not in found]
        if not rest or not all(self.misses(peer) for peer in rest):
            return {}
        alone = {}
        for peer in rest:
            since = self.last_reached(peer)
            long = now - max(since, self._doubt_until) >= ALONE_S
            if long and (len(rest) == 1 or self._is_refused(peer)):
                alone[peer] = Away(since)
        return alone

    def cut_off(self, peers: Collection[str], now: float) -> bool:
        """This node reaches nobody, and so cannot say anything about the others."""
        rest = set(peers) - set(self.away(peers, now))
        return len(rest) > 1 and all(
            self.misses(peer) and not self._is_refused(peer) for peer in rest
        )

    def _is_refused(self, peer: str) -> bool:
        """Its host has answered the last look: the network in between works."""
        seen = self._get(self._me, peer)
        return seen.refused == seen.missed


class RoundTrips:
    """How long answers of each peer take, smoothed as TCP does it (RFC 6298), and how long to wait for one."""

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        self._shortest, self._longest = shortest_s, longest_s
        self._smooth: dict[str, tuple[float, float]] = {}

    def took(self, peer: str, seconds: float) -> None:
        if peer not in self._smooth:
            self._smooth[peer] = (seconds, seconds / 2)
            return
        mean, spread = self._smooth[peer]
        spread += (abs(mean - seconds) - spread) / 4
        self._smooth[peer] = (mean + (seconds - mean) / 8, spread)

    def of(self, peer: str) -> float | None:
        """Seconds; None for a peer that has not answered yet."""
        return self._smooth[peer][0] if peer in self._smooth else None

    def patience(self, peer: str) -> float:
        mean, spread = self._smooth.get(peer, (0.0, 0.0))
        return min(self._longest, max(self._shortest, mean + 4 * spread))

    def keep_only(self, names: Collection[str]) -> None:
        self._smooth = {peer: each for peer, each in self._smooth.items() if peer in names}


def explain(peer: str, away: Away, now: float) -> str:
    """`now` and `away.since` are of the same clock."""
    gone = _for_so_long(now - away.since)
    if away.left:
        return f"{peer} said goodbye {gone} ago"
    if not away.reporters:
        return f"{peer} has not answered this node for {gone}, and nobody else is there to be asked"
    return f"{peer} has not answered this node for {gone}, nor {', '.join(away.reporters)}"


def _for_so_long(seconds: float) -> str:
    if seconds < 100:
        return f"{max(0.0, seconds):.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
