"""frozen: evidence of what runs now, and the bookmark that undoes what follows (P5)."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.upgrade.bookmark import Bookmark
from agent.upgrade.context import Context, Deps
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.messages import Verdict
from shared.readiness import ReadinessDocument


class Freeze:
    phase: ClassVar = Phase.FROZEN

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        deps, record = context.deps, context.record
        readiness = deps.readiness.document()
        installed = await self._installed(deps, readiness)
        bookmark = Bookmark(
            upgrade=record.upgrade,
            previous=record.fact(Phase.CLAIMED, "previous"),
            previous_version=record.fact(Phase.CLAIMED, "version_before"),
            created=deps.clock.now(),
            weight=deps.weight.get(),
            readiness=readiness.model_dump(mode="json"),
            installed=installed,
            lock_sha256=readiness.comparable.lock_sha256,
            tree_sha256=readiness.comparable.tree_sha256,
            plugins=readiness.comparable.plugins,
        )
        await asyncio.to_thread(deps.bookmarks.write, bookmark)
        return {
            "ready_probe_sha256": readiness.ready_probe_sha256,
            "evidence_sha256": readiness.evidence_sha256,
            "lock_sha256": readiness.comparable.lock_sha256,
            "weight": bookmark.weight,
            "baseline": deps.baseline(bookmark.previous),
        }

    async def _installed(self, deps: Deps, readiness: ReadinessDocument) -> str:
        """As npm lists it. A green node runs the very tree that was listed when it was verified."""
        if not deps.layout.current.exists():
            return ""
        known = deps.listings.of(readiness.comparable.tree_sha256)
        if known is not None and readiness.status is Verdict.GREEN:
            return known
        return await deps.npm.list_installed(deps.layout.current.resolve())
