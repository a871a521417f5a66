"""Memory of the gateway and its children against the ceiling (seed 001: 4 GiB)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent.openclaw.cli import OpenClaw
from agent.readiness.footprint import FamilyMeter
from agent.readiness.guards import Threshold
from agent.readiness.reading import Reading, unknown
from agent.service.base import Pid
from shared.canonical import canonical_json
from shared.readiness import CheckStatus

MIB = 1 << 20


class MemoryProbe:
    """Series `memory_bytes`, and `gateway_started_at`: the wall time at which this gateway was started, so that
    who looks for a leak neither counts its first moments nor takes two processes for one."""

    id = "memory"
    timeout_s = 10.0

    def __init__(
        self,
        openclaw: Callable[[], OpenClaw | None],
        alive: Callable[[], Awaitable[Pid | None]],
        meter: FamilyMeter,
        period_s: float,
        limit_bytes: int,
    ) -> None:
        self._openclaw = openclaw
        self._alive = alive
        self._meter = meter
        self._threshold = Threshold(limit_bytes)
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        if self._openclaw() is None:
            return unknown("no release is installed")
        pid = await self._alive()
        seen = None if pid is None else await asyncio.to_thread(self._meter.measure, pid.pid)
        if pid is None or seen is None:
            return Reading(CheckStatus.FAIL, "the gateway is not running")
        status = self._threshold.judge(seen.bytes)
        limit = self._threshold.limit
        reason = ""
        if status is CheckStatus.FAIL:
            reason = (
                f"the gateway uses {seen.bytes / MIB:.0f} MiB; the ceiling is {limit / MIB:.0f} MiB"
            )
        raw = {"bytes": seen.bytes, "kind": seen.kind, "processes": seen.processes}
        return Reading(
            status,
            reason,
            float(seen.bytes),
            "bytes",
            limit,
            raw=canonical_json(raw),
            series={"memory_bytes": float(seen.bytes), "gateway_started_at": pid.started},
        )
