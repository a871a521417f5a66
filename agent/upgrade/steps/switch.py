"""switched: `current` points at the new tree, by rename."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.upgrade.context import Context
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.durable import switch_link


class Switch:
    phase: ClassVar = Phase.SWITCHED

    async def done(self, context: Context) -> Evidence | None:
        current = context.deps.layout.current
        here = current.is_symlink() and current.resolve() == context.tree.resolve()
        return {"tree": context.tree.name} if here else None

    async def act(self, context: Context) -> Evidence:
        await asyncio.to_thread(switch_link, context.deps.layout.current, context.tree)
        return {"tree": context.tree.name}
