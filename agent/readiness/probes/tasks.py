"""One reading of the gateway's tasks for all probes that look at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.openclaw.tasks import Tasks, read_tasks
from shared.clock import Clock

SHARED_S = 1.0
"""So old a reading may be for the second that asks: they ask at the same moment."""


class TaskReader:
    def __init__(
        self, gateway: Gateway, openclaw: Callable[[], OpenClaw | None], clock: Clock
    ) -> None:
        self.gateway, self.openclaw = gateway, openclaw
        self._clock = clock
        self._lock = asyncio.Lock()
        self._last: tuple[float, Tasks] | None = None

    async def read(self, openclaw: OpenClaw) -> Tasks:
        """Raises CommandError when the gateway does not say."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._last is None or now - self._last[0] > SHARED_S:
                self._last = None
                tasks = await read_tasks(self.gateway, openclaw, self._clock.now())
                self._last = self._clock.monotonic(), tasks
            return self._last[1]
