"""What probes measured: an hour of every number as it came, and a week of it in buckets, in memory.

Series have names such as `memory_bytes`. Everything is bounded: so many series, so many samples of each. Times are
wall seconds since the epoch, because they must mean the same after a restart of the agent.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

FULL_S = 3600.0
MAX_SAMPLES = 3600
BUCKET_S = 300.0
COARSE_S = 7 * 86400.0
MAX_SERIES = 32
_SLACK = 256
"""So many samples too old may wait before room is made: a list is not moved for each of them."""


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a series had in the 300 s from `at` on."""

    at: float
    low: float
    mean: float
    high: float
    count: int


class _Series:
    """Packed numbers: a dataclass for each would cost six times the memory."""

    def __init__(self) -> None:
        self.times, self.values = array("d"), array("d")
        self._closed = {name: array("d") for name in Bucket.__slots__}
        self._open: list[float] = []
        self._opened = 0.0

    def note(self, at: float, value: float) -> None:
        if self.times and at < self.times[-1]:
            self._forget_from(at)
        self.times.append(at)
        self.values.append(value)
        if len(self.times) >= MAX_SAMPLES + _SLACK or self.times[0] < at - FULL_S - _SLACK:
            self._forget_until(max(len(self.times) - MAX_SAMPLES, self.place(at - FULL_S)))
        self._add_to_bucket(at, value)

    def place(self, at: float) -> int:
        """Of the first sample that is not older than `at`."""
        return bisect_left(self.times, at)

    def _forget_from(self, at: float) -> None:
        """The clock went back: what lies ahead of it was stamped by a clock that was wrong."""
        del self.values[self.place(at) :]
        del self.times[self.place(at) :]

    def _forget_until(self, place: int) -> None:
        del self.times[:place]
        del self.values[:place]

    def _add_to_bucket(self, at: float, value: float) -> None:
        start = at - at % BUCKET_S
        if start != self._opened:
            self._close()
            self._opened = start
        self._open.append(value)

    def _close(self) -> None:
        if self._open:
            self.add_bucket(self._bucket())
        self._open = []

    def _bucket(self) -> Bucket:
        count = len(self._open)
        mean = sum(self._open) / count
        return Bucket(self._opened, min(self._open), mean, max(self._open), count)

    def add_bucket(self, bucket: Bucket) -> None:
        """In the order of time; one that is known already, or that a clock which went back makes again, is not
        taken twice."""
        closed = self._closed
        if closed["at"] and bucket.at <= closed["at"][-1]:
            return
        for name, kept in closed.items():
            kept.append(getattr(bucket, name))
        too_old = bisect_left(closed["at"], bucket.at - COARSE_S)
        for kept in closed.values():
            del kept[:too_old]

    def buckets(self, since: float, *, closed_only: bool) -> list[Bucket]:
        columns = self._closed
        first = bisect_left(columns["at"], since)
        found = [
            Bucket(at, low, mean, high, int(count))
            for at, low, mean, high, count in zip(
                *(columns[name][first:] for name in Bucket.__slots__), strict=True
            )
        ]
        if self._open and not closed_only and self._opened >= since:
            found.append(self._bucket())
        return found


class History:
    """Never blocks. A sample that is noted by an earlier time than the last one makes the later ones forgotten."""

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}

    def note(self, name: str, at: float, value: float) -> None:
        """The first 32 names are kept, whatever else comes."""
        if name in self._series or len(self._series) < MAX_SERIES:
            self._series.setdefault(name, _Series()).note(at, value)

    def names(self) -> list[str]:
        return sorted(self._series)

    def newest(self, name: str) -> Sample | None:
        series = self._series.get(name)
        if series is None or not series.times:
            return None
        return Sample(series.times[-1], series.values[-1])

    def since(self, name: str, at: float) -> list[Sample]:
        """Oldest first, not older than `at`; an hour is there, and nothing before it."""
        series = self._series.get(name)
        if series is None or not series.times:
            return []
        place = series.place(max(at, series.times[-1] - FULL_S))
        return [
            Sample(when, value)
            for when, value in zip(series.times[place:], series.values[place:], strict=True)
        ]

    def coarse(self, name: str, since: float, *, closed_only: bool = False) -> list[Bucket]:
        """Buckets that began at `since` or later, oldest first, a week at most; the last one still fills unless
        `closed_only`."""
        series = self._series.get(name)
        return [] if series is None else series.buckets(since, closed_only=closed_only)

    def restore(self, name: str, buckets: Iterable[Bucket], samples: Iterable[Sample]) -> None:
        """What an earlier agent had noted, oldest first; before anything else is noted."""
        if name not in self._series and len(self._series) >= MAX_SERIES:
            return
        series = self._series.setdefault(name, _Series())
        for bucket in buckets:
            series.add_bucket(bucket)
        for sample in samples:
            series.note(sample.at, sample.value)
