"""The wall clock: against those of the peers, and against this host's own monotonic one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.readiness.reading import Reading
from shared.canonical import canonical_json
from shared.clock import Clock
from shared.readiness import CheckStatus

ENOUGH_PEERS = 2
"""With one peer nobody can tell whose clock is wrong."""
JUMP_S = 30.0
"""So much more wall time than monotonic time between two readings means that the host slept (the monotonic
clock stands still then) or that somebody set the clock."""


class ClockProbe:
    """`offsets` is how far each peer's clock is ahead of this one's, in seconds, as far as was measured lately.
    Series `clock_skew_s`: see `skew_of`."""

    id = "clock"
    timeout_s = 10.0

    def __init__(
        self,
        clock: Clock,
        offsets: Callable[[], Mapping[str, float]],
        period_s: float,
        limit_s: float,
    ) -> None:
        self._clock, self._offsets, self._limit_s = clock, offsets, limit_s
        self._before: tuple[float, float] | None = None
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        jump = self._jump()
        offsets = {name: round(offset, 3) for name, offset in sorted(self._offsets().items())}
        raw: dict[str, object] = {"offsets": offsets, "jump_s": round(jump, 3)}
        status, skew, reasons = CheckStatus.PASS, None, []
        if offsets:
            skew = skew_of(list(offsets.values()))
            if abs(skew) > self._limit_s:
                status, reason = self._judge(skew, offsets)
                reasons.append(reason)
        if abs(jump) > JUMP_S:
            status = CheckStatus.WARN if status is CheckStatus.PASS else status
            reasons.append(_say_jump(jump))
        return Reading(
            status,
            "; ".join(reasons),
            None if skew is None else round(skew, 3),
            "s",
            self._limit_s,
            raw=canonical_json(raw),
            series={} if skew is None else {"clock_skew_s": skew},
        )

    def _jump(self) -> float:
        """Seconds by which the wall clock gained on the monotonic one since the last reading."""
        now = (self._clock.now(), self._clock.monotonic())
        before, self._before = self._before, now
        return 0.0 if before is None else (now[0] - before[0]) - (now[1] - before[1])

    def _judge(self, skew: float, offsets: Mapping[str, float]) -> tuple[CheckStatus, str]:
        where = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'}"
        limit = f"the limit is {self._limit_s:g} s"
        if len(offsets) >= ENOUGH_PEERS:
            whom = f"the median of this fleet's clocks ({len(offsets)} peers)"
            return CheckStatus.FAIL, f"this node's clock is {where} {whom}; {limit}"
        name = next(iter(offsets))
        return (
            CheckStatus.WARN,
            f"this node's clock is {where} {name}'s, its only peer: one of them is wrong; {limit}",
        )


def skew_of(offsets: list[float]) -> float:
    """How far this clock is ahead of the median, in seconds; `offsets` has one for each peer, at least one.

    The own clock has a vote too: of three nodes one with a wrong clock must not make the other two look
    wrong. Of the two middle ones of an even number the one nearer to this clock counts. One peer alone has
    no majority, so there the whole difference is told.
    """
    if len(offsets) < ENOUGH_PEERS:
        return -offsets[0]
    clocks = sorted([0.0, *offsets])
    middle = (clocks[(len(clocks) - 1) // 2], clocks[len(clocks) // 2])
    return -min(middle, key=abs)


def _say_jump(jump: float) -> str:
    if jump > 0:
        return f"the host slept for {jump:.0f} s, or its clock was set forward by that"
    return f"the clock was set back by {-jump:.0f} s"
