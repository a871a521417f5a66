"""What a rollback would take away, counted and named before anything is stopped."""

from __future__ import annotations

import asyncio
from typing import Any

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gate
from agent.upgrade.bookmark import Bookmark
from agent.upgrade.context import Context, Deps
from agent.upgrade.phases import Phase
from shared.errors import CommandError
from shared.report import Loss

ASK_TIMEOUT_S = 30.0
NAMED = 20
_DULL = ("/.cache/", "/cache/", "/logs/", ".sqlite-shm", ".sqlite-wal")
"""Named last: nobody misses them."""


async def count_loss(context: Context, bookmark: Bookmark) -> Loss:
    """Files by comparison with the bookmark's copies; turns from the gateway, if it is ready. One that never was
    has taken none, and is not waited for."""
    deps = context.deps
    files = await asyncio.to_thread(deps.snapshots.written_since, bookmark)
    since = context.record.fact(Phase.SNAPSHOTTED, "stopped_at") or bookmark.created
    served = context.record.fact(Phase.RESTARTED, "running") is not None
    return Loss(
        files=len(files),
        named=sorted(files, key=lambda path: (_is_dull(path), path))[:NAMED],
        turns=await _turns_since(deps, since) if served else 0,
    )


def describe_loss(loss: Loss) -> str:
    """In a line, for people."""
    turns = "" if loss.turns is None else f", among them {loss.turns} agent turns"
    return f"{loss.files} files written since the switch are set aside{turns}"


async def _turns_since(deps: Deps, since: float) -> int | None:
    if (await deps.gateway.readyz()).gate is not Gate.READY:
        return None
    try:
        tasks = await _tasks(deps.openclaw(deps.layout.current))
    except CommandError:
        return None
    created = [task.get("createdAt") for task in tasks]
    return sum(isinstance(at, int | float) and at / 1000 >= since for at in created)


async def _tasks(openclaw: OpenClaw) -> list[dict[str, Any]]:
    """Raises CommandError when the listing is not of the known form; times are in milliseconds."""
    output, value = await openclaw.run_json("tasks", "list", "--json", timeout_s=ASK_TIMEOUT_S)
    tasks = value.get("tasks")
    if output.code != 0 or not isinstance(tasks, list):
        raise CommandError("the tasks cannot be read")
    return [task for task in tasks if isinstance(task, dict)]


def _is_dull(path: str) -> bool:
    return any(part in path for part in _DULL)
