"""Host names in `[peers] static`: looked up beside the loop, so that datagrams find an address, and so that a name
server that does not answer holds up nobody."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from agent.peers.directory import Directory
from shared.clock import Clock

log = structlog.get_logger()

LOOK_UP_EVERY_S = 60.0
LOOK_UP_AT_MOST_S = 5.0
THREADS = 2

LookUp = Callable[[str], list[str]]


def look_up(host: str) -> list[str]:
    """Blocking. Raises OSError when the name has no address."""
    found: list[Any] = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Names:
    """What a name stood for last counts until there is another answer."""

    def __init__(self, directory: Directory, clock: Clock, ask: LookUp = look_up) -> None:
        self._directory, self._clock, self._ask = directory, clock, ask
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="names")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self) -> None:
        while True:
            for host in self._directory.names_to_resolve():
                await self.resolve(host)
            await self._clock.sleep(LOOK_UP_EVERY_S)

    async def resolve(self, host: str) -> None:
        try:
            async with asyncio.timeout(LOOK_UP_AT_MOST_S):
                found = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._ask, host
                )
        except (OSError, UnicodeError, TimeoutError) as error:
            log.debug("name not looked up", host=host, reason=str(error))
            return
        self._directory.resolve(host, found)
