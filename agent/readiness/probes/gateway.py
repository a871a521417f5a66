"""`/readyz` of the gateway: listening, ready, and its event loop not far behind."""

from __future__ import annotations

from collections.abc import Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gate, GateReading, Gateway
from agent.readiness.guards import Threshold
from agent.readiness.reading import Reading, unknown
from shared.readiness import CheckStatus

SAID = {
    "startup-sidecars": "it is starting",
    "gateway-draining": "it is suspended, or ends its work before it stops",
    "plugin-reload": "it is loading plugins anew",
}


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
        self._threshold = Threshold(loop_p99_ms)
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        if self._openclaw() is None:
            return unknown("no release is installed")
        reading = await self._gateway.readyz()
        late = reading.loop_p99_ms
        series = {} if late is None else {"loop_p99_ms": late}
        if reading.gate is Gate.STRANGE:
            return unknown(reading.reason)
        if reading.gate is not Gate.READY:
            reason = sentence(reading)
            return Reading(CheckStatus.FAIL, reason, reading.gate, raw=reading.raw, series=series)
        if late is None:
            return Reading(CheckStatus.PASS, "", reading.gate, raw=reading.raw)
        return self._judge(late, reading.raw)

    def _judge(self, late_ms: float, raw: bytes) -> Reading:
        late = self._threshold.judge(late_ms) is CheckStatus.FAIL
        limit = self._threshold.limit
        return Reading(
            CheckStatus.WARN if late else CheckStatus.PASS,
            f"the gateway's event loop is {late_ms:.0f} ms late; the limit is {limit:.0f} ms"
            if late
            else "",
            late_ms,
            "ms",
            limit,
            raw=raw,
            series={"loop_p99_ms": late_ms},
        )


def sentence(reading: GateReading) -> str:
    """Why a gateway takes no traffic, in words; `failing` names more than these."""
    if reading.gate is not Gate.NOT_READY:
        return reading.reason
    known = [SAID[name] for name in reading.reason.split(", ") if name in SAID]
    return f"{known[0]} ({reading.reason})" if known else f"it is not ready: {reading.reason}"
