"""The last hour of what people want to see first, as few numbers: 30 of each series, with three digits."""

from __future__ import annotations

from statistics import fmean

from agent.readiness.history import FULL_S, History, Sample
from shared.clock import Clock
from shared.report import Trend

UNITS = {
    "memory_bytes": "bytes",
    "loop_p99_ms": "ms",
    "agent_loop_ms": "ms",
    "start_p95_ms": "ms",
    "run_p95_ms": "ms",
    "queue_depth": "tasks",
    "tasks_per_minute": "tasks/min",
    "tasks_asked_per_minute": "tasks/min",
    "host_memory_percent": "%",
    "disk_free_bytes": "bytes",
    "disk_latency_ms": "ms",
    "clock_skew_s": "s",
    "new_errors": "lines",
}
"""Series that people are shown, in this order."""
FIRST = ("memory_bytes", "tasks_per_minute", "start_p95_ms", "queue_depth", "loop_p99_ms")
"""Those that go with a report."""
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
        began = now - FULL_S
        found = [(name, self._history.since(name, began)) for name in FIRST]
        return [
            Trend(name=name, unit=UNITS[name], values=_in_short(samples, began))
            for name, samples in found
            if samples
        ]


def _in_short(samples: list[Sample], began: float) -> list[float | None]:
    """Three digits each: what a report carries."""
    means = parts_of_hour(samples, began, POINTS)
    return [None if mean is None else float(f"{mean:.3g}") for mean in means]


def parts_of_hour(samples: list[Sample], began: float, points: int) -> list[float | None]:
    """The mean of each of so many equal parts of the hour from `began` on; None where nothing was read."""
    parts: list[list[float]] = [[] for _ in range(points)]
    for each in samples:
        place = int((each.at - began) / FULL_S * points)
        parts[min(max(place, 0), points - 1)].append(each.value)
    return [fmean(part) if part else None for part in parts]
