"""The queue snapshot: what the gateway has in hand (`gateway.restart.preflight`)."""

from __future__ import annotations

from agent.openclaw.cli import OpenClaw
from agent.readiness.probes.call import CallProbe
from agent.readiness.reading import Reading
from shared.readiness import CheckStatus


class QueueProbe(CallProbe):
    id = "queue"

    async def ask(self, openclaw: OpenClaw) -> Reading:
        queue = await self._gateway.queue(openclaw)
        return Reading(CheckStatus.PASS, "", float(queue.active), "tasks", raw=queue.raw)
