"""verified: every file of the staged tree, before anything of the old one is stopped (P1)."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.openclaw.tree import LOCK, read_in, verify_tree
from agent.upgrade.context import Context, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.prepare import prepare
from agent.upgrade.steps.base import Evidence
from shared.lock import parse_lock
from shared.release import CORE


class Verify:
    phase: ClassVar = Phase.VERIFIED

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        release, deps, tree = context.signed(), context.deps, context.tree
        deps.progress("checking every file against the lock")
        seal = await asyncio.to_thread(verify_tree, tree, release.id, release.manifest.lock_sha256)
        lock = parse_lock(await asyncio.to_thread(read_in, tree, LOCK))
        twice = lock.duplicates_of([CORE, *release.manifest.plugins])
        if twice:
            raise StepFailed(f"{twice[0]} stands more than once in the tree")
        if problem := await deps.npm.list_problems(tree):
            raise StepFailed(f"npm ls: {problem}")
        version = await deps.openclaw(tree).version()
        if version != release.manifest.openclaw:
            raise StepFailed(
                f"the staged OpenClaw says {version}; the release says {release.manifest.openclaw}"
            )
        if reason := deps.alarm.frozen():
            raise StepFailed(f"this node was frozen meanwhile by {reason}")
        about = {"tree_sha256": seal.tree_sha256, "files": seal.files, "version": version}
        return {**about, **await prepare(context)}
