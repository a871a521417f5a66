"""The queue snapshot: what the gateway has in hand (`gateway.restart.preflight`)."""

from __future__ import annotations

from collections.abc import Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.reading import Reading, unknown
from shared.readiness import CheckStatus


class QueueProbe:
    id = "queue"
    timeout_s = 60.0

    def __init__(
        self, gateway: Gateway, openclaw: Callable[[], OpenClaw | None], period_s: float
    ) -> None:
        self._gateway = gateway
        self._openclaw = openclaw
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        openclaw = self._openclaw()
        if openclaw is None:
            return unknown("no release is installed")
        queue = await self._gateway.queue(openclaw)
        return Reading(CheckStatus.PASS, "", float(queue.active), "tasks", raw=queue.raw)
