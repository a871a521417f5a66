"""What probes measured: an hour of every number, in memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

FULL_S = 3600.0
MAX_SAMPLES = 3600


@dataclass(frozen=True, slots=True)
class Sample:
    """`at` is wall time in seconds since the epoch."""

    at: float
    value: float


class History:
    """Series by name, such as `memory_bytes`. Never blocks."""

    def __init__(self) -> None:
        self._series: dict[str, deque[Sample]] = {}

    def note(self, name: str, at: float, value: float) -> None:
        kept = self._series.setdefault(name, deque(maxlen=MAX_SAMPLES))
        kept.append(Sample(at, value))
        while kept[0].at < at - FULL_S:
            kept.popleft()

    def since(self, name: str, at: float) -> list[Sample]:
        """Oldest first, not older than `at`."""
        return [sample for sample in self._series.get(name, ()) if sample.at >= at]
