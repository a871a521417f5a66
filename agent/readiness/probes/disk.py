"""The disks that a node needs: room on them, and whether a small write still gets through in time."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.readiness.guards import Threshold
from agent.readiness.reading import Reading
from shared.canonical import canonical_json
from shared.durable import full_sync
from shared.readiness import CheckStatus
from shared.sizes import Watermark

WRITE_BYTES = 4096
RETURN_FACTOR = 1.05
"""Once below the watermark, a disk is well again only with 5 % more than that."""
MIB = 1 << 20
PREFIX = ".disk-"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Room:
    """Of the disk that holds `what`, in bytes; `free` is what the agent's account may still use."""

    what: str
    path: Path
    free: int
    total: int

    def share(self, watermark: Watermark) -> float:
        """Free bytes as a part of the watermark: below 1 it is too little."""
        wanted = watermark.of(self.total)
        return self.free / wanted if wanted else float("inf")


class DiskProbe:
    """`places` are folders by what they are for; the emptiest disk is the one that is named."""

    id = "disk"
    timeout_s = 30.0

    def __init__(
        self,
        places: Mapping[str, Path],
        scratch: Path,
        period_s: float,
        watermark: Watermark,
        latency_ms: float,
    ) -> None:
        self._places, self._scratch, self._watermark = dict(places), scratch, watermark
        self._threshold = Threshold(latency_ms)
        self._short = False
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        return await asyncio.to_thread(self._read)

    def _read(self) -> Reading:
        rooms = _rooms(self._places)
        lowest = min(rooms, key=lambda room: room.share(self._watermark))
        self._short = lowest.share(self._watermark) < (RETURN_FACTOR if self._short else 1)
        wanted = self._watermark.of(lowest.total)
        series = {"disk_free_bytes": float(lowest.free)}
        raw: dict[str, object] = {
            "free": {room.what: [str(room.path), room.free, room.total] for room in rooms}
        }
        status, reasons = CheckStatus.PASS, []
        if self._short:
            status = CheckStatus.FAIL
            reasons.append(
                f"the disk of {lowest.what} ({lowest.path}) has {lowest.free / MIB:.0f} MiB free;"
                f" the watermark is {wanted / MIB:.0f} MiB"
            )
        try:
            spent = series["disk_latency_ms"] = raw["write_ms"] = self._timed_write()
        except OSError as error:
            status = CheckStatus.FAIL
            reasons.append(_explain(error, self._scratch))
        else:
            if self._threshold.judge(spent) is CheckStatus.FAIL:
                status = CheckStatus.FAIL
                reasons.append(
                    f"a synced write of {WRITE_BYTES} bytes in {self._scratch} took {spent:.0f} ms,"
                    f" twice; the limit is {self._threshold.limit:.0f} ms"
                )
        reason = "; ".join(reasons)
        observed, limit = float(lowest.free), float(wanted)
        return Reading(
            status, reason, observed, "bytes", limit, raw=canonical_json(raw), series=series
        )

    def _timed_write(self) -> float:
        """In ms. One that is too slow is made again at once, and the quicker one counts: a disk that is
        slow for a moment has nothing to do with the node's health."""
        first = timed_write(self._scratch)
        return first if first <= self._threshold.limit else min(first, timed_write(self._scratch))


def timed_write(folder: Path) -> float:
    """Make a small file, write it through to the disk, and remove it whatever happens. Returns ms."""
    path = folder / f"{PREFIX}{secrets.token_hex(8)}"
    began = time.perf_counter()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            if os.write(fd, bytes(WRITE_BYTES)) != WRITE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            full_sync(fd)
        finally:
            os.close(fd)
        return (time.perf_counter() - began) * 1000
    finally:
        path.unlink(missing_ok=True)


def _rooms(places: Mapping[str, Path]) -> list[Room]:
    """One for each disk. A place that is not there yet counts as its nearest folder above that is."""
    seen: dict[int, Room] = {}
    for what, place in places.items():
        path = next(each for each in (place, *place.parents) if each.exists())
        usage = shutil.disk_usage(path)
        seen.setdefault(path.stat().st_dev, Room(what, path, usage.free, usage.total))
    return list(seen.values())


def _explain(error: OSError, folder: Path) -> str:
    if error.errno in _FULL:
        return f"the disk of {folder} is full: a write of {WRITE_BYTES} bytes did not fit"
    if error.errno == errno.EROFS:
        return f"the disk of {folder} cannot be written any more: its file system is read-only"
    return f"{folder} cannot be written: {error.strerror or error}"
