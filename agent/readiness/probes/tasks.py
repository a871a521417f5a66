"""One reading of the gateway's tasks for all probes that look at them.

It begins a while after the gateway's start: tasks that a restart cut off were not this gateway's, and its first
turns are slow (2026.9.6: 10 s).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.openclaw.tasks import Tasks, read_tasks
from agent.service.base import Pid
from shared.clock import Clock
from shared.errors import CommandError

SHARED_S = 1.0
"""So old a reading may be for the second that asks: they ask at the same moment."""
ENOUGH_S = 60.0
"""A shorter time gives no rate."""


class TaskReader:
    def __init__(
        self,
        gateway: Gateway,
        openclaw: Callable[[], OpenClaw | None],
        alive: Callable[[], Awaitable[Pid | None]],
        clock: Clock,
        warmup_s: float,
    ) -> None:
        self.gateway, self.openclaw = gateway, openclaw
        self._alive, self._clock, self._warmup_s = alive, clock, warmup_s
        self._lock = asyncio.Lock()
        self._last: tuple[float, Tasks | CommandError] | None = None

    async def read(self, openclaw: OpenClaw) -> Tasks:
        """Raises CommandError when the gateway does not say."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._last is None or now - self._last[0] > SHARED_S:
                found = await self._try(openclaw)
                self._last = self._clock.monotonic(), found
            found = self._last[1]
        if isinstance(found, CommandError):
            raise CommandError(found.message)
        return found

    async def _try(self, openclaw: OpenClaw) -> Tasks | CommandError:
        try:
            return await self._read(openclaw)
        except CommandError as error:
            return error

    async def _read(self, openclaw: OpenClaw) -> Tasks:
        pid = await self._alive()
        if pid is None:
            raise CommandError("the gateway is not running")
        warm = pid.started + self._warmup_s
        return await read_tasks(self.gateway, openclaw, self._clock.now(), warm)
