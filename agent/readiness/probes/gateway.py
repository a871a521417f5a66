"""`/readyz` of the gateway: listening, ready, and its event loop not far behind."""

from __future__ import annotations

from collections.abc import Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gate, Gateway
from agent.readiness.guards import Ceiling
from agent.readiness.reading import Reading, unknown
from shared.readiness import CheckStatus


class GatewayProbe:
    id = "gateway"
    timeout_s = 5.0

    def __init__(
        self,
        gateway: Gateway,
        openclaw: Callable[[], OpenClaw | None],
        period_s: float,
        loop_p99_ms: float,
    ) -> None:
        self._gateway = gateway
        self._openclaw = openclaw
        self._ceiling = Ceiling(loop_p99_ms)
        self._loop: CheckStatus | None = None
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        if self._openclaw() is None:
            return unknown("no release is installed")
        reading = await self._gateway.readyz()
        if reading.gate is Gate.STRANGE:
            return unknown(reading.reason)
        if reading.gate is not Gate.READY:
            return Reading(CheckStatus.FAIL, reading.reason, reading.gate, raw=reading.raw)
        if reading.loop_p99_ms is None:
            return Reading(CheckStatus.PASS, "", reading.gate, raw=reading.raw)
        self._loop = self._ceiling.judge(reading.loop_p99_ms, self._loop)
        late = self._loop is CheckStatus.FAIL
        return Reading(
            CheckStatus.WARN if late else CheckStatus.PASS,
            "the gateway's event loop is late" if late else "",
            reading.loop_p99_ms,
            "ms",
            self._ceiling.limit,
            raw=reading.raw,
        )
