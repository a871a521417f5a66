"""reopening: the gateway was closed to new work and never stopped; it takes work and traffic again."""

from __future__ import annotations

from typing import ClassVar

from agent.openclaw.gateway import resume, suspend
from agent.upgrade.context import Context, Deps
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from agent.upgrade.steps.drain import can_suspend
from shared.errors import CommandError


class Reopen:
    phase: ClassVar = Phase.REOPENING

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        deps = context.deps
        weight = context.record.fact(Phase.FROZEN, "weight")
        deps.progress("opening the gateway again")
        resumed = can_suspend(context) and await take_work_again(deps, context.record.upgrade)
        await deps.weight.set(100 if weight is None else int(weight))
        return {"weight": weight, "resumed": resumed}


async def take_work_again(deps: Deps, request: str) -> bool:
    """Asking once more under the same name gives the suspension's id. If nothing answers the lease
    ends by itself within 120 s."""
    openclaw = deps.openclaw(deps.layout.current)
    try:
        answer = await suspend(openclaw, request, wait_s=0)
        if answer.id is not None:
            await resume(openclaw, answer.id)
    except CommandError:
        return False
    return True
