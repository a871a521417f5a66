"""One task for each peer of the roster, for as long as the roster names it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from agent.trust import Trust
from shared.clock import Clock

LOOK_EVERY_S = 1.0


async def serve_each_peer(
    trust: Trust, clock: Clock, what: str, serve: Callable[[str], Coroutine[Any, Any, None]]
) -> None:
    """Runs `serve(name)` for every live peer, for ever; cancels it when the peer leaves. `what` names
    the tasks."""
    running: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            names = set(trust.peer_names())
            for name in names - running.keys():
                running[name] = group.create_task(serve(name), name=f"{what}-{name}")
            for name in running.keys() - names:
                running.pop(name).cancel()
            await clock.sleep(LOOK_EVERY_S)
