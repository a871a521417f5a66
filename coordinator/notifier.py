"""Wakes whoever waits for news. The generation never goes back, also not over a restart."""

from __future__ import annotations

import asyncio

from shared.clock import wait_at_most

RESTART_STEP = 1000
"""A boot is numbered by its time in ms; no coordinator has more news than this in one."""


class Notifier:
    def __init__(self, boot: int) -> None:
        self._generation = boot * RESTART_STEP
        self._news = asyncio.Event()

    @property
    def generation(self) -> int:
        return self._generation

    def notify(self) -> None:
        self._generation += 1
        self._news.set()
        self._news = asyncio.Event()

    async def wait_beyond(self, generation: int, timeout_s: float) -> int:
        """Returns the generation at once when it is newer, else at the next change or the timeout."""
        if self._generation <= generation and timeout_s > 0:
            await wait_at_most(self._news, timeout_s)
        return self._generation
