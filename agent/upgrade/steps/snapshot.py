"""snapshotted: the gateway is stopped, and the copy of what it writes is brought up to date. The outage begins."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.openclaw.gateway import Gate
from agent.upgrade.context import Context, Deps, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.failpoint import fail_point

PORT_FREE_S = 30.0


class Snapshot:
    phase: ClassVar = Phase.SNAPSHOTTED

    async def done(self, context: Context) -> Evidence | None:
        return None if context.moves else {"stopped_at": None, "folders": []}

    async def act(self, context: Context) -> Evidence:
        deps, upgrade = context.deps, context.record.upgrade
        bookmark = await asyncio.to_thread(deps.bookmarks.read, upgrade)
        if bookmark is None:
            raise StepFailed("the bookmark of this upgrade is gone")
        gateway = deps.config.gateway
        folders = [gateway.state, *gateway.workspaces]
        served = await deps.service.alive() is not None
        if served and not deps.snapshots.is_warm(upgrade):
            deps.progress("copying state and workspaces while the gateway serves")
            await asyncio.to_thread(deps.snapshots.warm, upgrade, folders)
        stopped = deps.clock.now()
        deps.progress("stopping the gateway")
        deps.readiness.pause()
        await deps.service.stop(gateway.stop_timeout)
        fail_point("snapshot.stopped")
        await wait_port_free(deps)
        deps.progress("copying what has changed since")
        saved = await asyncio.to_thread(deps.snapshots.snapshot, upgrade, folders)
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
