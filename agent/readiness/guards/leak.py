"""Memory that only grows: called by its slope, long before the ceiling.

What it must tell apart looks alike for a while: a leak, V8's saw (garbage is collected when there is enough of it: a
busy OpenClaw 2026.9.6 was seen to gain 180 MiB in 150 s and to give them back at once, again and again), a gateway that
warms up, one that got more to do. Over windows from `leak_window` to an hour:

- Is the rise certain, spread over the window, and still going on (agent/readiness/guards/slope.py)?
- Is it more than the gateway may be expected to give back? A fall without a restart is memory that was not leaked, so
  that is one and a half times the deepest such fall of a week, and not less than a 32nd of the ceiling.
- Is the gateway known? One that was watched for less than an hour may have a saw that nobody has seen fall yet, and a
  first tooth and a leak are the same numbers. Until then a 16th of the ceiling is expected back, unless it grew past a
  quarter of the ceiling (nearly: 24 %) before our eyes.
- At the slope that is certain, is the ceiling less than `leak_horizon` away?
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.readiness.guards.base import RETURN_FRACTION
from agent.readiness.guards.life import FALL, MEMORY, STARTED, born_at, warm_samples
from agent.readiness.guards.slope import BLOCKS, LEAST_POINTS, Rise, measure_rise
from agent.readiness.history import BUCKET_S, FULL_S, History, Sample
from shared.readiness import Check, CheckStatus

MIB = 1 << 20
WARN_TIMES = 4
LEAST_PART, UNKNOWN_PART, MOST_PART = 1 / 32, 1 / 16, 1 / 8
MARGIN = 1.5
QUARTER = 0.24
KNOWN_S = 3600.0
CERTAIN, STILL_CERTAIN = 4.5, 2.0
"""Student's t with nine degrees of freedom at 99.5 %; after a failure it must fall well below that."""
LEARN_EVERY_S = 60.0


@dataclass(frozen=True)
class LeakLimits:
    ceiling: float
    warmup_s: float
    window_s: float
    horizon_s: float

    @property
    def windows(self) -> list[float]:
        """Shortest first, each twice the one before, up to the hour that the history has."""
        found = [self.window_s]
        while found[-1] * 2 <= FULL_S:
            found.append(found[-1] * 2)
        return found


class LeakGuard:
    """`observed` is the growth that is certain, in bytes/s; `limit` is the one that would reach the ceiling at
    the horizon. Judged once for each new reading of memory."""

    id = "leak"

    def __init__(self, limits: LeakLimits) -> None:
        self._limits = limits
        self._judged: tuple[Sample | None, float | None] | None = None
        self._check: Check | None = None
        self._rises: dict[float, tuple[float, Rise | None]] = {}
        self._known, self._learned_at = False, -math.inf
        self._earlier, self._given_back, self._lowest = 0.0, 0.0, 0.0

    def judge(self, history: History, now: float) -> Check:
        key = (history.newest(MEMORY), born_of(history))
        if self._check is None or self._judged != key:
            self._check, self._judged = self._look(history), key
        return self._check

    def _look(self, history: History) -> Check:
        samples = warm_samples(history, self._limits.warmup_s)
        seen = samples[-1].at - samples[0].at if samples else 0.0
        if seen < self._limits.window_s:
            return self._too_early(history, seen)
        newest = samples[-1]
        self._learn(history, samples)
        failed = self._check is not None and self._check.status is CheckStatus.FAIL
        rises = self._measure(samples, seen)
        if not rises:
            return self._inconclusive(newest, f"has fewer than {LEAST_POINTS} readings to go by")
        leaks = [each for each in rises if self._is_leak(each, newest.value, failed=failed)]
        surest = max(each.least for each in leaks or rises)
        return self._word(surest, newest, leaking=bool(leaks), failed=failed)

    def _measure(self, samples: list[Sample], seen: float) -> list[Rise]:
        """A window is looked at again when it has moved by one of its blocks: a long one need not be often."""
        newest = samples[-1].at
        for window in self._limits.windows:
            known = self._rises.get(window)
            if window > seen:
                self._rises.pop(window, None)
            elif known is None or not 0 <= newest - known[0] < window / BLOCKS:
                part = [each for each in samples if each.at >= newest - window]
                self._rises[window] = (newest, measure_rise(part))
        return [rise for _, rise in self._rises.values() if rise is not None]

    def _is_leak(self, rise: Rise, used: float, *, failed: bool) -> bool:
        ceiling = self._limits.ceiling
        ease = RETURN_FRACTION if failed else 1.0
        crossed = self._lowest < ceiling * QUARTER <= used
        least = LEAST_PART if self._known or crossed else UNKNOWN_PART
        expected = max(ceiling * least, min(self._given_back * MARGIN, ceiling * MOST_PART))
        return (
            rise.lasts
            and rise.spread >= (STILL_CERTAIN if failed else CERTAIN)
            and rise.least * rise.span_s >= expected * ease
        )

    def _word(self, least: float, newest: Sample, *, leaking: bool, failed: bool) -> Check:
        limits = self._limits
        left = max(0.0, limits.ceiling - newest.value)
        limit = left / limits.horizon_s
        status, reason = CheckStatus.PASS, ""
        if leaking:
            ease = RETURN_FRACTION if failed else 1.0
            reason = describe_leak(least, left, limits.ceiling)
            if least >= limit * ease:
                status = CheckStatus.FAIL
            elif least >= limit / WARN_TIMES:
                status = CheckStatus.WARN
            else:
                reason = ""
        return Check(
            id=self.id,
            status=status,
            observed=round(max(0.0, least)),
            unit="bytes/s",
            limit=round(limit),
            at=newest.at,
            reason=reason,
        )

    def _too_early(self, history: History, seen: float) -> Check:
        """Where the gateway's process is too young, or nothing was read of it. Forgets an earlier failure: that
        was another process."""
        self._rises.clear()
        newest, born = history.newest(MEMORY), born_at(history)
        warmup, window = self._limits.warmup_s, self._limits.window_s
        if newest is None or born is None:
            reason = "no memory of the gateway was read yet"
        elif newest.at - born < warmup:
            reason = f"the gateway warms up; has seen 0 s of {window:.0f} s"
        else:
            reason = f"has seen {seen:.0f} s of {window:.0f} s"
        return self._inconclusive(newest, reason)

    def _inconclusive(self, newest: Sample | None, reason: str) -> Check:
        return Check(
            id=self.id,
            status=CheckStatus.WARN,
            at=None if newest is None else newest.at,
            reason=reason,
            inconclusive=True,
        )

    def _learn(self, history: History, samples: list[Sample]) -> None:
        """The week now and then, this process each time."""
        if samples[-1].at - self._learned_at >= LEARN_EVERY_S:
            self._learned_at = samples[-1].at
            self._earlier, watched = deepest_fall(history, self._limits.warmup_s)
            self._known = watched >= KNOWN_S
        peak = fall = 0.0
        for each in samples:
            peak = max(peak, each.value)
            fall = max(fall, peak - each.value)
        self._given_back = max(self._earlier, fall)
        self._lowest = min(each.value for each in samples)


def born_of(history: History) -> float | None:
    """Cheap: only what the probe says."""
    started = history.newest(STARTED)
    return None if started is None else started.value


def deepest_fall(history: History, warmup_s: float) -> tuple[float, float]:
    """Bytes that one process gave back at most without ending, in the last week, and how many seconds of it were
    looked at. Starts and warm-ups are left out."""
    starts = {bucket.at: bucket for bucket in history.coarse(STARTED, 0.0)}
    deepest, peak, watched = 0.0, 0.0, 0.0
    life: float | None = None
    for bucket in history.coarse(MEMORY, 0.0):
        start = starts.get(bucket.at)
        born = None if start is None else start.high
        restarted = born != life or (start is not None and start.low != start.high)
        if start is None and bucket.low < peak * (1 - FALL):
            restarted = True
        if restarted or (born is not None and bucket.at < born + warmup_s):
            life, peak = born, 0.0
            continue
        deepest = max(deepest, peak - bucket.low)
        peak = max(peak, bucket.high)
        watched += BUCKET_S
    return deepest, watched


def describe_leak(least: float, left: float, ceiling: float) -> str:
    grows, line = (
        f"memory grows by {describe_rate(least)}",
        f"the ceiling of {ceiling / MIB:.0f} MiB",
    )
    if left <= 0:
        return f"{grows}, and is above {line} already"
    return f"{grows}: reaches {line} in {describe_duration(left / least)}"


def describe_rate(rate: float) -> str:
    if rate >= MIB / 10:
        return f"{rate / MIB:.1f} MiB/s"
    return f"{rate * 60 / MIB:.1f} MiB/min"


def describe_duration(seconds: float) -> str:
    """As coarse as a person wants it, so that the same news is not told anew every second."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60 // 10 * 10} min"
