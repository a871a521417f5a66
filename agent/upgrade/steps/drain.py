"""drained: no new traffic, and the work in hand is finished, or what the policy says at the deadline.

Load balancers are told first: a gateway that is asked to suspend refuses what still comes.
"""

from __future__ import annotations

from typing import ClassVar

import structlog

from agent.config import DrainPolicy
from agent.openclaw.gateway import suspend
from agent.upgrade.context import Context, Deps, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.errors import CommandError
from shared.failpoint import fail_point
from shared.versions import OpenClawVersion

HAS_SUSPEND = OpenClawVersion("2026.8.1")
WAIT_S = 20.0
POLL_S = 1.0
SHOWN = 3

log = structlog.get_logger()


class Drain:
    phase: ClassVar = Phase.DRAINED

    async def done(self, context: Context) -> Evidence | None:
        """Nothing has to be drained: the gateway keeps running, or there is none."""
        if not context.moves:
            return {"drained": False, "left": [], "suspended": False}
        if await context.deps.service.alive() is None:
            await context.deps.weight.set(0)
            return {"drained": True, "left": [], "suspended": False}
        return None

    async def act(self, context: Context) -> Evidence:
        return await quiesce(context.deps, context.record.upgrade, suspends=can_suspend(context))


async def quiesce(deps: Deps, request: str, *, suspends: bool) -> Evidence:
    """Out of traffic, and nothing left in hand, or what the policy says at the deadline. `request` names who asks
    the gateway to suspend. Raises StepFailed where the policy is to abort."""
    deps.progress("no new traffic; waiting until the load balancers know")
    if untold := await deps.weight.leave():
        log.warning("drained without a word to", balancers=untold)
    deps.progress("no new traffic; waiting for what is in hand")
    limit, policy = deps.config.upgrade.drain_timeout, deps.config.upgrade.drain_policy
    ends = deps.clock.monotonic() + limit
    while blockers := await _ask(deps, request, ends - deps.clock.monotonic(), suspends=suspends):
        shown = ", ".join(blockers[:SHOWN])[:300]
        late = deps.clock.monotonic() - ends
        if late >= 0 and policy is DrainPolicy.ABORT:
            raise StepFailed(
                f"still in hand after {limit:.0f} s: {shown}",
                remedy="ask again when it is quieter; upgrade.drain_policy in"
                " agent.toml may say force or wait",
            )
        if late >= 0 and policy is DrainPolicy.FORCE:
            break
        when = f"{-late:.0f} s left" if late < 0 else f"{late:.0f} s over the deadline"
        deps.progress(f"waiting for {shown}; {when}")
        await deps.clock.sleep(POLL_S)
    fail_point("drain.quiet")
    return {"drained": not blockers, "left": blockers, "suspended": suspends, "untold": untold}


async def _ask(deps: Deps, request: str, left_s: float, *, suspends: bool) -> list[str]:
    """What is still in hand; empty once the gateway takes nothing new and has nothing left. A gateway
    that does not answer counts as busy: what it does is not known."""
    openclaw = deps.openclaw(deps.layout.current)
    try:
        if suspends:
            wait_s = max(0.0, min(WAIT_S, left_s))
            answer = await suspend(openclaw, request, wait_s=wait_s)
            return list(answer.blockers)
        queue = await deps.gateway.queue(openclaw, at_once=True)
        return [] if queue.safe else list(queue.blockers) or [f"{queue.active} tasks"]
    except CommandError as error:
        return [error.message]


def can_suspend(context: Context) -> bool:
    return has_suspend(context.record.fact(Phase.CLAIMED, "version_before"))


def has_suspend(version: str | None) -> bool:
    """The lease of 120 s reopens by itself, so an upgrade that dies here leaves nothing shut."""
    return version is not None and OpenClawVersion(version) >= HAS_SUSPEND
