"""The last hour of what people want to see first, as few numbers: 30 of each series, with three digits."""

from __future__ import annotations

from statistics import fmean

from agent.readiness.history import FULL_S, History, Sample
from shared.clock import Clock
from shared.report import Trend

UNITS = {
    "memory_bytes": "bytes",
    "tasks_per_minute": "tasks/min",
    "start_p95_ms": "ms",
    "queue_depth": "tasks",
    "loop_p99_ms": "ms",
}
POINTS = 30
KEPT_S = 60.0


class Trends:
    """Made once a minute: they go with every report, and nobody sees a difference sooner."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history, self._clock = history, clock
        self._made_at: float | None = None
        self._made: list[Trend] = []

    def now(self) -> list[Trend]:
        monotonic = self._clock.monotonic()
        if self._made_at is None or monotonic - self._made_at >= KEPT_S:
            self._made = self._make(self._clock.now())
            self._made_at = monotonic if self._made else None
        return self._made

    def _make(self, now: float) -> list[Trend]:
        found = [
            (name, unit, self._history.since(name, now - FULL_S)) for name, unit in UNITS.items()
        ]
        return [
            Trend(name=name, unit=unit, values=thin(samples, now - FULL_S, FULL_S, POINTS))
            for name, unit, samples in found
            if samples
        ]


def thin(samples: list[Sample], began: float, span: float, points: int) -> list[float | None]:
    """The mean of each of so many equal parts of the time from `began` on."""
    parts: list[list[float]] = [[] for _ in range(points)]
    for each in samples:
        place = int((each.at - began) / span * points)
        parts[min(max(place, 0), points - 1)].append(each.value)
    return [float(f"{fmean(part):.3g}") if part else None for part in parts]
