"""migrated: OpenClaw's own migration of its state with the new binary, then the release's overlay."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.openclaw.doctor import fix
from agent.openclaw.plugins import plugins_of
from agent.openclaw.settings import CONFIG, apply_overlays, last_touched_version
from agent.upgrade.context import Context, StepFailed, needs_fix
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.failpoint import fail_point
from shared.release import Migration


class Migrate:
    phase: ClassVar = Phase.MIGRATED

    async def done(self, context: Context) -> Evidence | None:
        return None if context.moves else {"fix_runs": 0, "overlays": 0, "migrations": []}

    async def act(self, context: Context) -> Evidence:
        deps, release = context.deps, context.signed()
        state = deps.config.gateway.state
        if not (state / CONFIG).exists():
            raise StepFailed(
                f"{state / CONFIG} does not exist",
                remedy="configure OpenClaw on this node first (openclaw configure)",
            )
        touched = await asyncio.to_thread(last_touched_version, state)
        runs, limit = 0, deps.config.upgrade.migrate_timeout
        rehearsed = context.record.fact(Phase.VERIFIED, "rehearsed")
        core = deps.openclaw(deps.layout.current)
        async with plugins_of(release, context.tree, core) as plugins:
            if needs_fix(context, touched) and (rehearsed is None or rehearsed["fix_runs"] > 0):
                deps.progress("migrating state (openclaw doctor --fix)")
                runs = await fix(plugins.openclaw, timeout_s=limit)
                fail_point("migrate.fixed")
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
