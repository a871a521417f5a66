"""drained: no new traffic, and the work in hand is finished, as far as the deadline allows."""

from __future__ import annotations

from typing import ClassVar

from agent.openclaw.gateway import suspend
from agent.upgrade.context import Context
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.errors import CommandError
from shared.versions import OpenClawVersion

HAS_SUSPEND = OpenClawVersion("2026.8.1")
WAIT_S = 20.0
POLL_S = 2.0


class Drain:
    phase: ClassVar = Phase.DRAINED

    async def done(self, context: Context) -> Evidence | None:
        """Nothing runs, so nothing has to be drained: a first install, or a gateway that is down."""
        if await context.deps.service.alive() is None:
            await context.deps.weight.set(0)
            return {"drained": True, "left": [], "suspended": False}
        return None

    async def act(self, context: Context) -> Evidence:
        deps = context.deps
        await deps.weight.set(0)
        deps.progress("no new traffic; waiting for what is in hand")
        ends = deps.clock.monotonic() + deps.config.upgrade.drain_timeout
        can_suspend = self._can_suspend(context)
        blockers: list[str] = ["not asked yet"]
        while blockers and deps.clock.monotonic() < ends:
            try:
                if can_suspend:
                    blockers = await self._suspend(context)
                else:
                    blockers = await self._poll(context)
            except CommandError as error:
                blockers = [str(error)]
            if blockers:
                deps.progress(f"waiting for {blockers[0][:200]}")
                await deps.clock.sleep(POLL_S)
        return {"drained": not blockers, "left": blockers, "suspended": can_suspend}

    def _can_suspend(self, context: Context) -> bool:
        before = context.record.fact(Phase.CLAIMED, "version_before")
        return before is not None and OpenClawVersion(before) >= HAS_SUSPEND

    async def _suspend(self, context: Context) -> list[str]:
        """The lease of 120 s reopens by itself, so an upgrade that dies here leaves nothing shut."""
        openclaw = context.deps.openclaw(context.deps.layout.current)
        answer = await suspend(openclaw, context.record.upgrade, wait_s=WAIT_S)
        return list(answer.blockers)

    async def _poll(self, context: Context) -> list[str]:
        openclaw = context.deps.openclaw(context.deps.layout.current)
        queue = await context.deps.gateway.queue(openclaw)
        return [] if queue.safe else list(queue.blockers) or [f"{queue.active} tasks"]
