"""A program of the lab as a process of its own, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

STOP_S = 10.0


class Child:
    """Whoever starts it keeps its process, and the task that reads what it says."""

    _process: asyncio.subprocess.Process
    _reading: asyncio.Task[None]

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def stop(self) -> None:
        """In order, also where it was stopped for a while; by force where that takes too long."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
