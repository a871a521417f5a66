"""An order to restart the gateway: out of traffic, what is in hand finished, stopped, started, ready, back in."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.orders.kept import Outcome
from agent.orders.performer import Hands, Work
from agent.service.base import Pid
from agent.upgrade.context import Deps
from agent.upgrade.steps.drain import has_suspend, quiesce
from agent.upgrade.steps.reopen import take_work_again
from agent.upgrade.steps.restart import ask_version, start_and_wait
from shared.errors import ConflictError
from shared.failpoint import fail_point
from shared.orders import OrderKind

SLACK_S = 60.0


class Restart:
    """The process of before is noted: after a kill of the agent its successor
    is taken for what it is, and not restarted once more."""

    kind: ClassVar[str] = OrderKind.RESTART

    def __init__(self, deps: Deps, hands: Hands) -> None:
        self._deps, self._hands = deps, hands

    @property
    def eta_s(self) -> float:
        limits, gateway = self._deps.config.upgrade, self._deps.config.gateway
        waits = limits.drain_timeout + limits.settle + gateway.stop_timeout + gateway.ready_timeout
        return waits + SLACK_S

    async def perform(self, work: Work) -> Outcome:
        if not self._deps.layout.current.exists():
            raise ConflictError("no release is installed on this node")
        async with self._hands.hold():
            before, cut_short = await self._prepare(work), False
            try:
                if not work.begun:
                    await self._leave(work, before)
                return await self._restart(work)
            except asyncio.CancelledError:
                cut_short = work.begun
                raise  # the agent itself is being stopped: its successor goes on, out of traffic
            finally:
                if not cut_short:
                    await self._take_traffic(work)

    async def _take_traffic(self, work: Work) -> None:
        """What could not be begun leaves the share as it was: it is the same process."""
        before = int(work.facts["weight"])
        weight = self._hands.again(before) if work.begun and work.order.terms.drain else before
        if self._deps.weight.get() != weight:
            await self._deps.weight.set(weight)

    async def _prepare(self, work: Work) -> Pid | None:
        """The process that runs, noted with the weight of before, once."""
        alive = await self._deps.service.alive()
        if "weight" not in work.facts:
            pid = None if alive is None else [alive.pid, alive.started]
            await work.note(weight=self._deps.weight.get(), before=pid)
        return alive

    async def _leave(self, work: Work, alive: Pid | None) -> None:
        """Until `begin` everything can be undone: the gateway takes work again, and its weight comes back."""
        if not work.order.terms.drain or alive is None:
            await work.begin()
            return
        deps = self._deps
        version = await deps.gateway.running_version(deps.openclaw(deps.layout.current))
        suspends = has_suspend(version)
        try:
            work.say("no new traffic; waiting for what is in hand")
            await quiesce(deps, work.name, suspends=suspends)
            await work.begin()
        except BaseException:
            if suspends:
                await take_work_again(deps, work.name)
            raise

    async def _restart(self, work: Work) -> Outcome:
        deps = self._deps
        alive, stopped = await deps.service.alive(), deps.clock.now()
        if alive is not None and [alive.pid, alive.started] == work.facts["before"]:
            work.say("stopping the gateway")
            deps.readiness.pause()
            try:
                await deps.service.stop(deps.config.gateway.stop_timeout)
            finally:
                deps.readiness.resume()
            fail_point("order.stopped")
        work.say("starting the gateway")
        pid = await start_and_wait(deps)
        fail_point("order.started")
        await deps.readiness.refresh()  # Doctor by itself looks once an hour
        outage = max(0.0, deps.clock.now() - stopped)
        version = await ask_version(deps)
        said = f"OpenClaw {version or 'of unknown version'} runs as pid {pid.pid}"
        return Outcome(reason=f"{said}, {outage:.1f} s without a gateway")
