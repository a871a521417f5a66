"""switched: the new release stands where the gateway starts from."""

from __future__ import annotations

from typing import ClassVar

from agent.upgrade.context import Context
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence


class Switch:
    phase: ClassVar = Phase.SWITCHED

    async def done(self, context: Context) -> Evidence | None:
        return await context.deps.installer.switched(context)

    async def act(self, context: Context) -> Evidence:
        return await context.deps.installer.switch(context)
