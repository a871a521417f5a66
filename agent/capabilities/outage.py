"""The time without a gateway that a plugin takes: out of traffic, what is in hand finished, stopped; started after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.orders.performer import Work
from agent.upgrade.context import Deps
from agent.upgrade.steps.drain import has_suspend, quiesce
from agent.upgrade.steps.reopen import take_work_again
from agent.upgrade.steps.restart import start_and_wait
from shared.failpoint import fail_point


async def leave(deps: Deps, work: Work) -> None:
    """Nothing new, nothing in hand. Until `begin` the caller can still let it all go on."""
    if await deps.service.alive() is None:
        return
    version = await deps.gateway.running_version(deps.openclaw(deps.layout.current))
    suspends = has_suspend(version)
    try:
        await quiesce(deps, work.name, suspends=suspends)
    except BaseException:
        if suspends:
            await take_work_again(deps, work.name)
        raise


@asynccontextmanager
async def stopped(deps: Deps) -> AsyncIterator[None]:
    """No gateway inside; a ready one after it, unless the agent itself is being stopped: its successor goes on here.
    Readiness looks away meanwhile: nobody is to take this for a failure."""
    deps.readiness.pause()
    try:
        if await deps.service.alive() is not None:
            await deps.service.stop(deps.config.gateway.stop_timeout)
        fail_point("capability.stopped")
        yield
    except asyncio.CancelledError:
        deps.readiness.resume()
        raise
    except BaseException:
        await _serve_again(deps)
        raise
    await _serve_again(deps)


async def _serve_again(deps: Deps) -> None:
    """What was read before the outage says nothing any more, and Doctor by itself looks once an hour."""
    await start_and_wait(deps)
    fail_point("capability.started")
    await deps.readiness.refresh()
