"""Which peers are not there, as it was last judged, and since when by the wall clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from agent.peers.silence import Away, Silence, explain
from agent.trust import Trust
from shared.clock import Clock
from shared.report import Absence
from shared.wire import short

log = structlog.get_logger()


class Absences:
    """`on_change` is called when a peer goes away or comes back."""

    def __init__(
        self, trust: Trust, silence: Silence, clock: Clock, on_change: Callable[[], None]
    ) -> None:
        self._trust, self._silence, self._clock = trust, silence, clock
        self._on_change = on_change
        self._away: dict[str, tuple[Away, float]] = {}
        """With the wall time since when."""
        self._waiting: asyncio.Handle | None = None

    def __contains__(self, peer: str) -> bool:
        return peer in self._away

    def shown(self) -> dict[str, Absence]:
        """For people and for the coordinator."""
        now = self._clock.monotonic()
        return {
            peer: Absence(since=since, left=away.left, reason=short(explain(peer, away, now)))
            for peer, (away, since) in sorted(self._away.items())
        }

    def review(self) -> None:
        """Soon: once for all that is heard in one turn of the event loop."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().call_soon(self._judge)

    def _judge(self) -> None:
        self._waiting = None
        now, wall = self._clock.monotonic(), self._clock.now()
        found = self._silence.away(self._trust.peer_names(), now)
        news = {peer for peer in found.keys() | self._away.keys() if self._is_news(peer, found)}
        self._away = {
            peer: (away, wall - (now - away.since) if peer in news else self._away[peer][1])
            for peer, away in found.items()
        }
        for peer in sorted(news):
            if peer in found:
                log.info("peer away", peer=peer, reason=explain(peer, found[peer], now))
            else:
                log.info("peer back", peer=peer)
        if news:
            self._on_change()

    def _is_news(self, peer: str, found: Mapping[str, Away]) -> bool:
        before = self._away[peer][0].left if peer in self._away else None
        after = found[peer].left if peer in found else None
        return before != after

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
