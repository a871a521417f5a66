"""Time as a dependency, so that tests move it instead of waiting for it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time orders what people read; monotonic time measures. Neither replaces the other."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; it stops while a Mac sleeps (MACOS.md, 12)."""
        ...

    async def sleep(self, seconds: float) -> None: ...


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, or so long in real time, whichever comes first."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


async def sleep_until(event: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Until the event is set, or so long by this clock, whichever comes first."""
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    waking = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        waking.cancel()


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
