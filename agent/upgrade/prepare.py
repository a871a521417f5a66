"""All of an outage that can be had before it: the state copied, the upgrade rehearsed, and the question answered
whether it could be undone."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from agent.config import Rehearsal
from agent.openclaw.tree import config_schema, read_seal
from agent.upgrade.context import Context, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.rehearsal import Rehearsed, rehearse
from shared.wayback import Facts, judge_way_back


async def prepare(context: Context) -> dict[str, Any]:
    """Evidence for the journal; empty for a first install, and where the gateway keeps running. Raises
    StepFailed when the rehearsal fails, or when there would be no way back."""
    deps = context.deps
    if context.record.fact(Phase.CLAIMED, "previous") is None or not context.moves:
        return {}
    gateway = deps.config.gateway
    folders = [gateway.state, *gateway.workspaces]
    deps.progress("copying state and workspaces while the gateway serves")
    began = deps.clock.monotonic()
    copies = await asyncio.to_thread(deps.snapshots.warm, context.record.upgrade, folders)
    took = deps.clock.monotonic() - began
    rehearsed = None
    wanted = deps.config.upgrade.rehearsal is not Rehearsal.OFF
    if wanted and copies and deps.installer.rehearses:
        rehearsed = await _rehearse(context, copies)
    facts = await asyncio.to_thread(_facts, context, folders, took, rehearsed)
    answer = judge_way_back(facts)
    if not answer.possible:
        raise StepFailed(
            f"there would be no way back: {'; '.join(answer.reasons)}",
            remedy="see to that, and set the target again",
        )
    return {
        "way_back": answer.model_dump(mode="json"),
        "rehearsed": None if rehearsed is None else rehearsed.evidence(),
    }


async def _rehearse(context: Context, copies: list[Path]) -> Rehearsed:
    """What fails on a copy is not tried again by itself (P8)."""
    try:
        return await rehearse(context, copies)
    except StepFailed as error:
        await context.deps.alarm.block(context.record.target.release, error.message)
        raise


def _facts(
    context: Context, folders: list[Path], took: float, rehearsed: Rehearsed | None
) -> Facts:
    deps = context.deps
    previous = context.record.fact(Phase.CLAIMED, "previous")
    tree = deps.tree(previous)
    state, copies = folders[0], deps.bookmarks.folder(context.record.upgrade)
    blocked = [] if rehearsed is None else [each for each in rehearsed.databases if each.blocks]
    return Facts(
        previous=previous,
        previous_whole=read_seal(tree) is not None,
        schema_before=config_schema(tree),
        schema_after=config_schema(context.tree),
        blocked=tuple(f"{each.database}: {each.status}" for each in blocked),
        state_bytes=deps.snapshots.measure(folders),
        free_bytes=shutil.disk_usage(state.parent).free,
        same_disk=state.parent.stat().st_dev == copies.stat().st_dev,
        snapshot_s=took,
        ready_s=None if rehearsed is None else rehearsed.ready_s,
    )
