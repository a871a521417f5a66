"""snapshotted: the gateway is stopped, and everything it may write is copied. The outage begins."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.openclaw.gateway import Gate
from agent.upgrade.context import Context, Deps, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence

PORT_FREE_S = 30.0


class Snapshot:
    phase: ClassVar = Phase.SNAPSHOTTED

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        deps, upgrade = context.deps, context.record.upgrade
        served = await deps.service.alive() is not None
        stopped = deps.clock.now()
        deps.progress("stopping the gateway")
        await deps.service.stop(deps.config.gateway.stop_timeout)
        deps.readiness.forget()
        await wait_port_free(deps)
        deps.progress("copying state and workspaces")
        bookmark = await asyncio.to_thread(deps.bookmarks.read, upgrade)
        if bookmark is None:
            raise StepFailed("the bookmark of this upgrade is gone")
        gateway = deps.config.gateway
        folders = [gateway.state, *gateway.workspaces]
        saved = await asyncio.to_thread(deps.bookmarks.snapshot, upgrade, folders)
        complete = bookmark.model_copy(update={"folders": saved})
        await asyncio.to_thread(deps.bookmarks.write, complete)
        return {
            "stopped_at": stopped if served else None,
            "folders": [folder.model_dump() for folder in saved],
        }


async def wait_port_free(deps: Deps) -> None:
    """A port that still answers belongs to a gateway that is not ours to overlap with."""
    ends = deps.clock.monotonic() + PORT_FREE_S
    while (await deps.gateway.readyz()).gate is not Gate.DOWN:
        if deps.clock.monotonic() >= ends:
            raise StepFailed(f"port {deps.config.gateway.port} is still in use by another process")
        await deps.clock.sleep(0.1)
