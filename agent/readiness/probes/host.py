"""Memory of the host: how much of it is in use, and on macOS whether the kernel is short of it."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from agent.readiness.guards import Threshold
from agent.readiness.reading import Reading
from shared.canonical import canonical_json
from shared.readiness import CheckStatus

GIB = 1 << 30
NORMAL_PRESSURE = 1
PRESSURE_NAMES = {1: "normal", 2: "warning", 4: "critical"}


@dataclass(frozen=True)
class HostMemory:
    """`percent` of `total` bytes is in use: not available without swapping. `pressure` is macOS's
    `kern.memorystatus_vm_pressure_level`: 1 normal, 2 warning, 4 critical; None elsewhere."""

    percent: float
    total: int
    available: int
    pressure: int | None = None


def read_host_memory() -> HostMemory:
    memory = psutil.virtual_memory()
    pressure = vm_pressure_level() if sys.platform == "darwin" else None
    return HostMemory(memory.percent, memory.total, memory.available, pressure)


def vm_pressure_level() -> int | None:
    """Of macOS; None when it does not tell."""
    library = ctypes.CDLL(None, use_errno=True)
    level, size = ctypes.c_int(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    name = b"kern.memorystatus_vm_pressure_level"
    if library.sysctlbyname(name, ctypes.byref(level), ctypes.byref(size), None, 0) != 0:
        return None
    return level.value


class HostProbe:
    """A Mac compresses and caches into what is free, so there a high percentage alone is a warning, and a
    failure only together with the kernel's own word that memory is short."""

    id = "host"
    timeout_s = 10.0

    def __init__(
        self,
        period_s: float,
        limit_percent: float,
        memory: Callable[[], HostMemory] = read_host_memory,
    ) -> None:
        self._memory = memory
        self._threshold = Threshold(limit_percent)
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        seen = await asyncio.to_thread(self._memory)
        status, reason = self._threshold.judge(seen.percent), ""
        if status is CheckStatus.FAIL:
            reason = (
                f"{seen.percent:.0f} % of the host's memory is in use, {seen.available / GIB:.1f} of"
                f" {seen.total / GIB:.1f} GiB are left; the limit is {self._threshold.limit:g} %"
            )
        if seen.pressure is not None:
            word = PRESSURE_NAMES.get(seen.pressure, str(seen.pressure))
            if status is CheckStatus.FAIL and seen.pressure <= NORMAL_PRESSURE:
                status = CheckStatus.WARN
                reason += "; macOS calls the pressure normal"
            elif seen.pressure > NORMAL_PRESSURE:
                reason = reason or "the host is short of memory"
                reason += f"; macOS calls the pressure {word}"
                status = CheckStatus.WARN if status is CheckStatus.PASS else status
        raw = {"percent": seen.percent, "total": seen.total, "pressure": seen.pressure}
        return Reading(
            status,
            reason,
            seen.percent,
            "%",
            self._threshold.limit,
            raw=canonical_json(raw),
            series={"host_memory_percent": seen.percent},
        )
