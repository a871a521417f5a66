"""One task for each peer of the roster, or each of some, for as long as the roster names it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from agent.trust import Trust
from shared.clock import Clock, sleep_until

LOOK_EVERY_S = 30.0
"""A roster that changes is told at once; this is for whatever else might end."""


async def serve_each_peer(
    trust: Trust,
    clock: Clock,
    what: str,
    serve: Callable[[str], Coroutine[Any, Any, None]],
    wanted: Callable[[], list[str]],
) -> None:
    """Runs `serve(name)` for every peer that is wanted by the roster of now, for ever; cancels it when that is
    over. `what` names the tasks."""
    running: dict[str, asyncio.Task[None]] = {}
    changed = asyncio.Event()
    trust.listen(changed.set)
    async with asyncio.TaskGroup() as group:
        while True:
            changed.clear()
            names = set(wanted())
            for name in names - running.keys():
                running[name] = group.create_task(serve(name), name=f"{what}-{name}")
            for name in running.keys() - names:
                running.pop(name).cancel()
            await sleep_until(changed, clock, LOOK_EVERY_S)
