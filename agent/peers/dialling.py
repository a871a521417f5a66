"""Several addresses of one peer: the next is tried when one before it failed, or does not answer soon.

An address that leads nowhere costs seconds, and after a change of network the old ones all lead nowhere. So a few are
tried beside each other, as browsers do (RFC 8305); over all peers together only so many, that a fleet which is
off does not take this host's descriptors.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import aiohttp

from agent.peers.directory import Hint
from shared.wire import short

T = TypeVar("T")

EXPECTED = (aiohttp.ClientError, OSError, TimeoutError)
DIAL_TIMEOUT_S = 5.0
STAGGER_S = 0.3
BESIDE = 3
"""Attempts beside each other for one peer."""
MAX_EXTRA = 24
"""Attempts beyond the first of each peer, over all peers."""

LOCAL_NETWORK = "macOS may keep this process from the local network; a LaunchDaemon is exempt"


class Room:
    """How many attempts beyond the first of each peer may still begin."""

    def __init__(self, places: int = MAX_EXTRA) -> None:
        self._left = places

    def take(self) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        self._left += 1


class Race(Generic[T]):
    """One round over the addresses of a peer. `connect` raises one of EXPECTED for an address that does not lead
    there, and `failed` is told; `discard` ends what came second."""

    def __init__(
        self,
        connect: Callable[[Hint], Awaitable[T]],
        discard: Callable[[T], Awaitable[object]],
        failed: Callable[[Hint, Exception], None],
        room: Room,
    ) -> None:
        self._connect, self._discard, self._failed = connect, discard, failed
        self._room = room
        self._running: dict[asyncio.Task[T], tuple[Hint, bool]] = {}

    async def run(self, hints: Sequence[Hint]) -> tuple[Hint, T] | None:
        """The first that answers; None when none does."""
        waiting = deque(hints)
        try:
            while waiting or self._running:
                self._begin(waiting)
                pause = STAGGER_S if waiting and len(self._running) < BESIDE else None
                done, _ = await asyncio.wait(
                    self._running, timeout=pause, return_when=asyncio.FIRST_COMPLETED
                )
                if (won := await self._take(done)) is not None:
                    return won
            return None
        finally:
            await self._end()

    def _begin(self, waiting: deque[Hint]) -> None:
        extra = bool(self._running)
        if not waiting or len(self._running) >= BESIDE or (extra and not self._room.take()):
            return
        hint = waiting.popleft()
        task = asyncio.ensure_future(self._attempt(hint))
        self._running[task] = (hint, extra)

    async def _attempt(self, hint: Hint) -> T:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            return await self._connect(hint)

    async def _take(self, done: set[asyncio.Task[T]]) -> tuple[Hint, T] | None:
        won = None
        for task in done:
            hint = self._forget(task)
            error = task.exception()
            if isinstance(error, EXPECTED):
                self._failed(hint, error)
            elif error is not None:
                raise error
            elif won is None:
                won = hint, task.result()
            else:
                await self._discard(task.result())
        return won

    def _forget(self, task: asyncio.Task[T]) -> Hint:
        hint, extra = self._running.pop(task)
        if extra:
            self._room.give_back()
        return hint

    async def _end(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for task in list(self._running):
            self._forget(task)
            if not task.cancelled() and task.exception() is None:
                await self._discard(task.result())


def why(error: BaseException, platform: str = sys.platform) -> str:
    """Why an address does not lead to a peer, in a few words of ours."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name has no address"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return short(f"TLS refused: {error.certificate_error}", 200)
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"protocol: answered {error.status}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _why_system(error.os_error, platform)
    if isinstance(error, OSError) and error.errno is not None:
        return _why_system(error, platform)
    return short(f"protocol: {error or type(error).__name__}", 200)


def _why_system(error: OSError, platform: str) -> str:
    if isinstance(error, ssl.SSLError):
        return short(f"TLS refused: {error}", 200)
    if error.errno == errno.ECONNREFUSED:
        return "refused"
    if error.errno == errno.EHOSTUNREACH and platform == "darwin":
        return f"no route ({LOCAL_NETWORK})"
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "no route"
    if error.errno == errno.ETIMEDOUT:
        return "timed out"
    return short(error.strerror or str(error), 200)
