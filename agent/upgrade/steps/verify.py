"""verified: what was staged is what operators signed, before anything of the old one is stopped (P1)."""

from __future__ import annotations

from typing import ClassVar

from agent.upgrade.context import Context, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.prepare import prepare
from agent.upgrade.steps.base import Evidence


class Verify:
    phase: ClassVar = Phase.VERIFIED

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        evidence = await context.deps.installer.verify(context)
        evidence |= await prepare(context)
        if reason := context.deps.alarm.frozen():
            raise StepFailed(f"this node was frozen meanwhile by {reason}")
        return evidence
