"""The daemon's life in a process: until a signal, or until it leaves for another version of itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

from agent.daemon import Daemon
from agent.self_upgrade import Departure
from shared.errors import first_known


async def run_until_signal(
    daemon: Daemon, on_ready: Callable[[dict[str, str]], None] = lambda urls: None
) -> None:
    """SIGTERM and SIGINT stop the agent in order, and so does its own departure for another version; its
    gateway stays up for the next one."""
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(_live(daemon, on_ready), name="agent")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        try:
            await work
        except BaseExceptionGroup as group:
            if group.subgroup(Departure) is not None:
                return
            known = first_known(group)
            raise known if known is not None else group from group


async def _live(daemon: Daemon, on_ready: Callable[[dict[str, str]], None]) -> None:
    async with daemon:
        await daemon.run(on_ready)
