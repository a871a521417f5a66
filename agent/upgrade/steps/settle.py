"""good: traffic again, and this release is the last known good one. A red anywhere holds the weight (P3).

The node begins with the first share of the rollout; the coordinator widens it from there, step by step.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.upgrade.context import Context
from agent.upgrade.lastgood import note_good
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.traffic import FULL

LOOK_EVERY_S = 0.5


class Settle:
    phase: ClassVar = Phase.GOOD

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        deps, release = context.deps, context.record.target.release
        while reason := self._held(context):
            deps.progress(f"the weight stays: {reason}")
            await deps.clock.sleep(LOOK_EVERY_S)
        weight = self._first(context)
        await deps.weight.set(weight)
        await asyncio.to_thread(note_good, deps.layout.home, release, deps.clock.now())
        return {"weight": weight}

    def _held(self, context: Context) -> str:
        if reason := context.deps.alarm.frozen():
            return f"frozen by {reason}"
        return context.deps.weight.held()

    def _first(self, context: Context) -> int:
        """Where nobody asks for weights there is nothing to widen step by step; nor where the gateway ran on."""
        before = context.record.fact(Phase.FROZEN, "weight")
        weight = FULL if before is None else int(before)
        steps = context.moves and context.deps.weight.asked()
        return min(weight, context.record.target.share) if steps else weight
