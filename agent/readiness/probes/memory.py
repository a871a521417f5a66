"""Memory of the gateway and its children against the ceiling (seed 001: 4 GiB)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psutil

from agent.openclaw.cli import OpenClaw
from agent.readiness.guards import Ceiling
from agent.readiness.reading import Reading, unknown
from agent.service.base import Pid
from shared.readiness import CheckStatus

MIB = 1 << 20


class MemoryProbe:
    id = "memory"
    timeout_s = 10.0

    def __init__(
        self,
        openclaw: Callable[[], OpenClaw | None],
        alive: Callable[[], Awaitable[Pid | None]],
        period_s: float,
        limit_bytes: int,
    ) -> None:
        self._openclaw = openclaw
        self._alive = alive
        self._ceiling = Ceiling(limit_bytes)
        self._before: CheckStatus | None = None
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        if self._openclaw() is None:
            return unknown("no release is installed")
        pid = await self._alive()
        if pid is None:
            return Reading(CheckStatus.FAIL, "the gateway is not running")
        used = await asyncio.to_thread(resident_bytes, pid.pid)
        self._before = self._ceiling.judge(used, self._before)
        limit = self._ceiling.limit
        reason = ""
        if self._before is CheckStatus.FAIL:
            reason = f"the gateway uses {used / MIB:.0f} MiB; the ceiling is {limit / MIB:.0f} MiB"
        return Reading(
            self._before,
            reason,
            float(used),
            "bytes",
            limit,
            raw=str(used).encode(),
            series={"memory_bytes": float(used)},
        )


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all below it. A child that ends meanwhile counts nothing."""
    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total
