"""How this node has been in the last day, for its health score: three series of its own beside those of the probes.

Looked at every ten seconds, and not while an upgrade moves the node: an outage that was planned is none here. What
happened while no agent ran is not known, and does not count either way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from agent.health import is_serving
from agent.readiness.history import BUCKET_S, Bucket, History
from agent.service.base import Pid
from shared.clock import Clock
from shared.messages import Verdict
from shared.nodes import NodeHealth
from shared.readiness import ReadinessDocument

LOOK_EVERY_S: Final = 10.0
DAY_S: Final = 86400.0
RECENT_S: Final = 900.0
"""For what must show soon: errors, and waits."""
LEAST_LOOKS: Final = round(3600 / LOOK_EVERY_S)
KEPT_S: Final = 60.0
UP, READY, CRASHES = "gateway_up", "ready", "gateway_crashes"


class Vitals:
    """`settled`: there is a release to keep up, and nothing moves it. `alive` is the gateway's process."""

    def __init__(
        self,
        history: History,
        clock: Clock,
        document: Callable[[], ReadinessDocument],
        settled: Callable[[], bool],
        alive: Callable[[], Awaitable[Pid | None]],
    ) -> None:
        self._history, self._clock = history, clock
        self._document, self._settled, self._alive = document, settled, alive
        self._pid: Pid | None = None
        self._made: tuple[float, NodeHealth] | None = None

    async def run(self) -> None:
        while True:
            await self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        if not self._settled():
            self.expect_restart()
            return
        pid, document, now = await self._alive(), self._document(), self._clock.now()
        self._history.note(UP, now, float(is_serving(document)))
        self._history.note(READY, now, float(document.status is Verdict.GREEN))
        crashed = pid is not None and self._pid is not None and pid != self._pid
        self._history.note(CRASHES, now, float(crashed))
        if crashed or (self._made is not None and not self._made[1].window_s):
            self._made = None
        self._pid = pid or self._pid

    def expect_restart(self) -> None:
        """The next process that is seen is not counted: somebody asked for it."""
        self._pid = None

    def health(self) -> NodeHealth:
        """Made anew once a minute, and at once after the first look and each crash."""
        monotonic = self._clock.monotonic()
        if self._made is None or monotonic - self._made[0] >= KEPT_S:
            self._made = monotonic, self._make(self._clock.now())
        return self._made[1]

    def _make(self, now: float) -> NodeHealth:
        up, ready = self._day(UP, now), self._day(READY, now)
        ended, failed = (
            self._recent("tasks_ended_per_minute"),
            self._recent("tasks_failed_per_minute"),
        )
        wait = self._recent("start_p95_ms")
        return NodeHealth(
            window_s=sum(bucket.count for bucket in up) * LOOK_EVERY_S,
            uptime=_percent(up),
            ready=_percent(ready),
            error_rate=round(100 * failed / ended, 2) if ended and failed is not None else None,
            start_p95_ms=None if wait is None else round(wait, 1),
            crashes=round(_sum(self._day(CRASHES, now))),
        )

    def _day(self, name: str, now: float) -> list[Bucket]:
        return self._history.coarse(name, now - DAY_S - BUCKET_S)

    def _recent(self, name: str) -> float | None:
        samples = self._history.since(name, self._clock.now() - RECENT_S)
        return sum(each.value for each in samples) / len(samples) if samples else None


def _sum(buckets: list[Bucket]) -> float:
    return sum(bucket.mean * bucket.count for bucket in buckets)


def _percent(buckets: list[Bucket]) -> float | None:
    """Of less than an hour as if the rest of the hour had been good: a second look that fails is no outage of 50 %."""
    looks = sum(bucket.count for bucket in buckets)
    missed = looks - _sum(buckets)
    return round(100 * (1 - missed / max(looks, LEAST_LOOKS)), 3) if looks else None
