"""staged: the new release is made ready beside the old one, which serves meanwhile."""

from __future__ import annotations

from typing import ClassVar

from agent.upgrade.context import Context
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence


class Stage:
    phase: ClassVar = Phase.STAGED

    async def done(self, context: Context) -> Evidence | None:
        return await context.deps.installer.staged(context)

    async def act(self, context: Context) -> Evidence:
        return await context.deps.installer.stage(context)
