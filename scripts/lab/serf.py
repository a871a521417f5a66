"""serf's agent as a process, from outside: what it says of the other members, and when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Sequence

from shared.errors import UnavailableError

EVENT = re.compile(rb"EventMember(Join|Failed|Leave): (\S+) ")
STOP_S = 10.0


class SerfAgent:
    """With serf's own settings for a LAN. `before` stands before the program, such as `ip netns exec NAME`."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        rpc_port: int,
        join: Sequence[str],
        *,
        before: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._argv = [
            *before,
            *("serf", "agent", f"-node={name}", f"-bind={host}:{port}"),
            f"-rpc-addr=127.0.0.1:{rpc_port}",
            *(f"-retry-join={address}" for address in join),
            "-retry-interval=1s",
        ]
        self.joined: set[str] = set()
        self.failed: dict[str, float] = {}
        """Who, and when, on the system's monotonic clock."""
        self._news = asyncio.Condition()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reading = asyncio.create_task(self._read(), name=f"serf-{self.name}")

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _read(self) -> None:
        if self._process.stdout is None:
            return
        async for line in self._process.stdout:
            if (found := EVENT.search(line)) is None:
                continue
            what, who, now = found[1], found[2].decode(), time.monotonic()
            async with self._news:
                if what == b"Join":
                    self.joined.add(who)
                elif what == b"Failed":
                    self.failed[who] = now
                self._news.notify_all()

    async def until_joined(self, names: Sequence[str], timeout_s: float) -> None:
        await self._until(lambda: set(names) <= self.joined, "all have joined", timeout_s)

    async def until_failed(self, name: str, timeout_s: float) -> float:
        await self._until(lambda: name in self.failed, f"{name} has failed", timeout_s)
        return self.failed[name]

    async def _until(self, good: Callable[[], bool], what: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(good)
        except TimeoutError:
            raise UnavailableError(
                f"serf of {self.name} did not say within {timeout_s:g} s that {what}"
            ) from None

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def stop(self) -> None:
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
