"""The history on disk: what was measured survives a restart of the agent.

Written once a minute in one transaction, so that a disk can sleep in between; what the last minute had is lost with
the power. A disk that is full costs the history alone: it is tried again a minute later, with what came meanwhile.
"""

from __future__ import annotations

import struct

import structlog

from agent.readiness.history import BUCKET_S, COARSE_S, FULL_S, Bucket, History, Sample
from agent.store import Store
from shared.clock import Clock
from shared.errors import RollcallError

log = structlog.get_logger()

WRITE_EVERY_S = 60.0
_BUCKETS = (
    "SELECT series, at, low, mean, high, count FROM history_buckets WHERE at >= ? ORDER BY at"
)
_SAMPLES = "SELECT series, packed FROM history_samples WHERE at >= ? ORDER BY at"


class Chronicle:
    """`load` once before the first reading, `run` beside everything else, `save` at the end."""

    def __init__(self, history: History, store: Store, clock: Clock) -> None:
        self._history, self._store, self._clock = history, store, clock
        self._samples_saved: dict[str, float] = {}
        self._buckets_saved: dict[str, float] = {}

    async def load(self) -> None:
        """What cannot be read is begun anew. What a clock that was ahead has stamped is left out: it would
        push out what comes now."""
        now = self._clock.now()
        try:
            buckets = await self._store.rows(_BUCKETS, now - COARSE_S)
            packed = await self._store.rows(_SAMPLES, now - FULL_S - 2 * WRITE_EVERY_S)
        except RollcallError as error:
            log.warning("the history begins anew", reason=str(error))
            return
        kept: dict[str, tuple[list[Bucket], list[Sample]]] = {}
        for name, *numbers in buckets:
            bucket = Bucket(*numbers)
            if bucket.at <= now:
                kept.setdefault(name, ([], []))[0].append(bucket)
        for name, raw in packed:
            known = kept.setdefault(name, ([], []))[1]
            known += [each for each in unpack(raw) if now - FULL_S <= each.at <= now]
        for name, (coarse, full) in kept.items():
            self._history.restore(name, coarse, full)
            self._samples_saved[name] = full[-1].at if full else 0.0
            self._buckets_saved[name] = coarse[-1].at if coarse else 0.0

    async def run(self) -> None:
        while True:
            await self._clock.sleep(WRITE_EVERY_S)
            await self.save()

    async def save(self) -> None:
        """What is new since the last time. A failure is logged and changes nothing here."""
        now = self._clock.now()
        samples = {name: self._new_samples(name) for name in self._history.names()}
        buckets = {name: self._new_buckets(name) for name in self._history.names()}
        blobs = [(name, new[0].at, pack(new)) for name, new in samples.items() if new]
        rows = [
            (name, each.at, each.low, each.mean, each.high, each.count)
            for name, new in buckets.items()
            for each in new
        ]
        old = (now - FULL_S - WRITE_EVERY_S, now + BUCKET_S)
        ancient = (now - COARSE_S, now + BUCKET_S)
        try:
            await self._store.write_all(
                [
                    ("INSERT OR REPLACE INTO history_samples VALUES (?, ?, ?)", blobs),
                    ("INSERT OR REPLACE INTO history_buckets VALUES (?, ?, ?, ?, ?, ?)", rows),
                    ("DELETE FROM history_samples WHERE at < ? OR at > ?", [old]),
                    ("DELETE FROM history_buckets WHERE at < ? OR at > ?", [ancient]),
                ]
            )
        except RollcallError as error:
            log.warning("the history is not on disk", reason=str(error))
            return
        self._samples_saved.update({name: new[-1].at for name, new in samples.items() if new})
        self._buckets_saved.update({name: new[-1].at for name, new in buckets.items() if new})

    def _new_samples(self, name: str) -> list[Sample]:
        return [
            each
            for each in self._history.since(name, _bounded(self._samples_saved, name, self._clock))
            if each.at != self._samples_saved.get(name)
        ]

    def _new_buckets(self, name: str) -> list[Bucket]:
        since = _bounded(self._buckets_saved, name, self._clock)
        found = self._history.coarse(name, since, closed_only=True)
        return [each for each in found if each.at != self._buckets_saved.get(name)]


def _bounded(saved: dict[str, float], name: str, clock: Clock) -> float:
    """Up to where a series is on disk; a mark that lies ahead of a clock which went back counts nothing."""
    mark = saved.get(name, 0.0)
    return mark if mark <= clock.now() else 0.0


def pack(samples: list[Sample]) -> bytes:
    """Times and values by turns, as little-endian doubles."""
    numbers = [number for each in samples for number in (each.at, each.value)]
    return struct.pack(f"<{len(numbers)}d", *numbers)


def unpack(raw: bytes) -> list[Sample]:
    """As much as is whole."""
    whole = raw[: len(raw) // 16 * 16]
    return [Sample(at, value) for at, value in struct.iter_unpack("<dd", whole)]
