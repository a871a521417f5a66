"""rolling_back: link, plugins, configuration, state and weight as they were; offline; never twice.

The red goes out first: peers freeze while this node is still busy. Every part can be repeated after
a crash. When even this fails the node is `stuck`, and whichever tree starts is left running.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

import structlog

from agent.upgrade.bookmark import Bookmark
from agent.upgrade.context import Context, StepFailed
from agent.upgrade.lastgood import note_good
from agent.upgrade.loss import count_loss, describe_loss
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from agent.upgrade.steps.restart import ask_version, outage, start_and_wait
from agent.upgrade.steps.snapshot import wait_port_free
from shared.failpoint import fail_point
from shared.messages import RedKind

log = structlog.get_logger()


class RollBack:
    phase: ClassVar = Phase.ROLLING_BACK

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        if not context.record.ordered:
            await self._tell(context, RedKind.UPGRADE_FAILED, context.record.reason)
        try:
            return await self._undo(context)
        except Exception as error:
            await self._tell(context, RedKind.STUCK, f"the rollback failed: {error}")
            await self._leave_something_running(context)
            raise
        finally:
            context.deps.readiness.resume()

    async def _tell(self, context: Context, kind: RedKind, reason: str) -> None:
        """Peers first, but whatever keeps them from being told must not keep the node from going back."""
        release = context.record.target.release
        try:
            await context.deps.alarm.raise_red(kind, reason, release)
            await context.deps.alarm.block(release, reason)
        except Exception:
            log.exception("red not raised", kind=kind)

    async def _undo(self, context: Context) -> Evidence:
        """What can fail without having stopped anything comes first: then the gateway stays up (fault 13)."""
        deps, record = context.deps, context.record
        bookmark = await asyncio.to_thread(deps.bookmarks.read, record.upgrade)
        if bookmark is None:
            raise StepFailed("the bookmark of this upgrade is gone")
        previous = None if bookmark.previous is None else deps.tree(bookmark.previous)
        await deps.installer.can_put_back(deps, bookmark)
        if not bookmark.folders:
            return await self._link_back(context, bookmark, previous)
        lost = await count_loss(context, bookmark)
        deps.progress(f"rolling back; {describe_loss(lost)}")
        await asyncio.to_thread(deps.snapshots.prepare, bookmark)
        await self._leave(context)
        stopped = deps.clock.now()
        deps.progress("stopping the gateway")
        deps.readiness.pause()
        await deps.service.stop(deps.config.gateway.stop_timeout)
        fail_point("rollback.stopped")
        await wait_port_free(deps)
        kept = await self._restore(context, bookmark, previous)
        await deps.weight.set(bookmark.weight)
        about = {"kept": kept, "lost": lost.model_dump(mode="json")}
        if previous is None:
            return {"running": None, "outage_s": None, **about}
        ready = await self._start(context, bookmark)
        return {
            "running": bookmark.previous_version,
            "outage_s": _outage(context, stopped, ready),
            **about,
        }

    async def _leave(self, context: Context) -> None:
        """A gateway that still serves is taken out of the load balancers first. Nothing here keeps the node from
        going back."""
        deps = context.deps
        if await deps.service.alive() is None:
            return
        deps.progress("no new traffic; waiting until the load balancers know")
        try:
            if untold := await deps.weight.leave():
                log.warning("rolling back without a word to", balancers=untold)
        except OSError as error:
            log.warning("the weight stays while rolling back", reason=str(error))

    async def _start(self, context: Context, bookmark: Bookmark) -> float:
        """When it was ready. Raises StepFailed when it is not what ran before."""
        deps = context.deps
        deps.progress("starting the previous release")
        await start_and_wait(deps)
        ready = deps.clock.now()
        version = await ask_version(deps)
        if version != bookmark.previous_version:
            raise StepFailed(f"{version} is running, not {bookmark.previous_version}")
        if bookmark.previous is not None:
            await asyncio.to_thread(note_good, deps.layout.home, bookmark.previous, ready)
        await deps.readiness.refresh()
        return ready

    async def _link_back(
        self, context: Context, bookmark: Bookmark, previous: Path | None
    ) -> Evidence:
        """The state was never touched: the gateway goes on where it runs, and is started where it was
        stopped for a snapshot that did not come about."""
        deps = context.deps
        await deps.installer.put_back(deps, bookmark)
        await deps.weight.set(bookmark.weight)
        about: Evidence = {"running": bookmark.previous_version, "kept": [], "outage_s": None}
        if previous is not None and await deps.service.alive() is None:
            await self._start(context, bookmark)
            return about
        if bookmark.previous is not None:
            now = deps.clock.now()
            await asyncio.to_thread(note_good, deps.layout.home, bookmark.previous, now)
        await deps.readiness.refresh(["tree"])
        return about

    async def _restore(
        self, context: Context, bookmark: Bookmark, previous: Path | None
    ) -> list[str]:
        """State first: should it fail, the new tree stands on the state that it has migrated, and can
        start."""
        deps = context.deps
        deps.progress("restoring state and workspaces")
        kept = await asyncio.to_thread(deps.snapshots.restore, bookmark)
        await deps.installer.put_back(deps, bookmark)
        return kept

    async def _leave_something_running(self, context: Context) -> None:
        deps = context.deps
        if deps.layout.current.exists() and await deps.service.alive() is None:
            await deps.service.start(deps.service_spec())


def _outage(context: Context, stopped: float, ready: float) -> float | None:
    """Without the time between, when the new gateway did serve for a while."""
    first: float | None = context.record.fact(Phase.RESTARTED, "outage_s")
    if first is None:
        return outage(context, ready)
    return round(first + max(0.0, ready - stopped), 2)
