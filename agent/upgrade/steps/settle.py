"""good: traffic again, and this release is the last known good one. A red anywhere holds the weight (P3)."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.upgrade.context import Context
from agent.upgrade.lastgood import note_good
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence

LOOK_EVERY_S = 0.5


class Settle:
    phase: ClassVar = Phase.GOOD

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        deps, release = context.deps, context.record.target.release
        while reason := deps.alarm.frozen():
            deps.progress(f"the weight stays: frozen by {reason}")
            await deps.clock.sleep(LOOK_EVERY_S)
        before = context.record.fact(Phase.FROZEN, "weight")
        weight = 100 if before is None else before
        await deps.weight.set(int(weight))
        await asyncio.to_thread(note_good, deps.layout.home, release, deps.clock.now())
        return {"weight": weight}
