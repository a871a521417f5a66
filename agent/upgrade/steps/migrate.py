"""migrated: OpenClaw's own migration of its state with the new binary, then the release's overlay."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.openclaw.cli import OpenClaw
from agent.openclaw.plugins import plugins_of
from agent.openclaw.settings import CONFIG, apply_overlays, last_touched_version
from agent.upgrade.context import Context, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.release import Migration

FIX = ("doctor", "--fix", "--non-interactive")
ATTEMPTS = 2
"""2026.9.6 can refuse one step on its first run over state that 2026.7.35's own `doctor --fix` has
touched, and finishes on the second; a state that two runs do not carry over is restored."""


class Migrate:
    phase: ClassVar = Phase.MIGRATED

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        deps, release = context.deps, context.signed()
        state = deps.config.gateway.state
        if not (state / CONFIG).exists():
            raise StepFailed(
                f"{state / CONFIG} does not exist",
                remedy="configure OpenClaw on this node first (openclaw configure)",
            )
        touched = await asyncio.to_thread(last_touched_version, state)
        before = context.record.fact(Phase.CLAIMED, "version_before")
        runs, limit = 0, deps.config.upgrade.migrate_timeout
        core = deps.openclaw(deps.layout.current)
        async with plugins_of(release, context.tree, core) as plugins:
            if {touched, before} - {None, release.manifest.openclaw}:
                runs = await self._fix(context, plugins.openclaw)
            plugged = await plugins.install(timeout_s=limit)
        overlays = release.manifest.overlays_for(deps.role)
        await asyncio.to_thread(apply_overlays, state, overlays, context.tree)
        migrations = [await self._migrate(context, each) for each in release.manifest.migrations]
        return {
            "from": touched,
            "fix_runs": runs,
            "plugins": plugged,
            "overlays": len(overlays),
            "migrations": migrations,
        }

    async def _migrate(self, context: Context, migration: Migration) -> str:
        """One of the release's own; after a crash it is called again, so it must allow that."""
        deps = context.deps
        deps.progress(f"migration {migration.id}")
        openclaw = deps.openclaw(deps.layout.current)
        output = await openclaw.run(*migration.words, timeout_s=deps.config.upgrade.migrate_timeout)
        if output.code != 0:
            raise StepFailed(f"migration {migration.id} failed: {output.last_line()}")
        return migration.id

    async def _fix(self, context: Context, openclaw: OpenClaw) -> int:
        deps = context.deps
        for attempt in range(1, ATTEMPTS + 1):
            deps.progress("migrating state (openclaw doctor --fix)")
            output = await openclaw.run(*FIX, timeout_s=deps.config.upgrade.migrate_timeout)
            if output.code == 0:
                return attempt
        if output.timed_out:
            raise StepFailed("openclaw doctor --fix did not end in time")
        raise StepFailed(f"openclaw doctor --fix failed ({output.code}): {output.last_line()}")
