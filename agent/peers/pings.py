"""Asks a peer whether it is there: over the kept connection, and over one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any

from agent.peers.link import Link
from agent.peers.transport import NoAddressError, NobodyThereError, Transport
from shared.clock import Clock
from shared.errors import RollcallError, UnavailableError

PATH = "/v1/peer/ping"
PATIENCE_S = 10.0
"""An answer that comes this late still counts, whatever was concluded meanwhile."""
AT_ONCE_S = 0.05
DIALS = 4
AGAIN_S = 0.01
"""A process that dies may still take a connection, and drop it: dialled again at once, its host refuses."""


class Found(Enum):
    ANSWERED = "answered"
    REFUSED = "refused"
    NOTHING = "nothing"
    UNFOUND = "unfound"
    """Nobody could be asked: no address is known."""


class Pings:
    """One question by each way is under way to a peer; who asks meanwhile waits for the same answer.
    `on_answer` is told the peer and how long it took, in seconds."""

    def __init__(
        self,
        transport: Transport,
        link_of: Callable[[str], Link | None],
        clock: Clock,
        on_answer: Callable[[str, float], None],
    ) -> None:
        self._transport, self._link_of, self._clock = transport, link_of, clock
        self._on_answer = on_answer
        self._links: dict[str, asyncio.Task[Found]] = {}
        self._dials: dict[str, asyncio.Task[Found]] = {}

    def by_link(self, peer: str) -> asyncio.Task[Found] | None:
        link = self._link_of(peer)
        return None if link is None else self._once(self._links, peer, lambda: self._ask(link))

    def by_dial(self, peer: str) -> asyncio.Task[Found]:
        return self._once(self._dials, peer, lambda: self._dial(peer))

    def _once(
        self,
        tasks: dict[str, asyncio.Task[Found]],
        peer: str,
        ask: Callable[[], Coroutine[Any, Any, Found]],
    ) -> asyncio.Task[Found]:
        if (task := tasks.get(peer)) is not None and not task.done():
            return task
        task = tasks[peer] = asyncio.get_running_loop().create_task(
            self._time(peer, ask), name=f"ping-{peer}"
        )
        task.add_done_callback(lambda _: tasks.pop(peer) if tasks.get(peer) is task else None)
        return task

    async def _time(self, peer: str, ask: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
        began = self._clock.monotonic()
        found = await ask()
        if found is Found.ANSWERED:
            self._on_answer(peer, self._clock.monotonic() - began)
        return found

    async def _ask(self, link: Link) -> Found:
        try:
            await link.ping(PATIENCE_S)
        except UnavailableError:
            return Found.NOTHING
        return Found.ANSWERED

    async def _dial(self, peer: str) -> Found:
        for _ in range(DIALS):
            began = self._clock.monotonic()
            try:
                await self._transport.dial(peer, "GET", PATH, timeout_s=PATIENCE_S)
            except NobodyThereError:
                return Found.REFUSED
            except NoAddressError:
                return Found.UNFOUND
            except UnavailableError:
                if self._clock.monotonic() - began > AT_ONCE_S:
                    break
                await self._clock.sleep(AGAIN_S)
                continue
            except RollcallError:
                """An answer, whatever it says."""
            return Found.ANSWERED
        return Found.NOTHING

    async def close(self) -> None:
        tasks = [*self._links.values(), *self._dials.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def settle(task: asyncio.Task[Found], patience: float) -> Found:
    """What it found, or nothing in time; it goes on meanwhile."""
    done, _ = await asyncio.wait({task}, timeout=patience)
    return task.result() if task in done else Found.NOTHING
