"""In a large fleet a node has few connections and may not know where everybody is: whoever accepts a new red or
clear passes its very bytes on to those that it is connected with, once. Everybody is reached over many paths.

The origin's own datagrams go straight to all the same, and so do the acks: passing on is for whom they miss. In a
fleet where every pair is connected nothing is passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import structlog

from agent.peers.asked import Operations
from agent.peers.datagrams import ACK, Datagrams
from agent.peers.directory import Directory
from agent.peers.links import Links
from shared.errors import RollcallError
from shared.messages import MAX_MESSAGE_BYTES, Clear, Message, Red, read_message

log = structlog.get_logger()

PATH = "/v1/peer/spread"
TIMEOUT_S = 10.0
ADDRESSES = 2
"""Of the origin, that an ack is sent to."""


class Receiver(Protocol):
    """Verifies and keeps a message of whomever, and returns this node's ack; knows what it has accepted."""

    async def receive(self, raw: bytes) -> bytes: ...

    def holds(self, raw: bytes) -> bool: ...


class Spreading:
    def __init__(
        self, mesh: Receiver, links: Links, directory: Directory, datagrams: Datagrams
    ) -> None:
        self._mesh, self._links = mesh, links
        self._directory, self._datagrams = directory, datagrams
        self._passing: set[asyncio.Task[None]] = set()

    def accepted(self, message: Message) -> None:
        """A new message, however it came."""
        if not isinstance(message.payload.body, Red | Clear):
            return
        if self._links.overlay.is_full:
            return
        raw = message.raw.encode()
        for peer in self._links.overlay.chosen():
            if peer != message.payload.origin:
                task = asyncio.get_running_loop().create_task(self._pass(peer, raw))
                self._passing.add(task)
                task.add_done_callback(self._passing.discard)

    async def _pass(self, peer: str, raw: bytes) -> None:
        """Once: whom nobody reaches now learns when it compares notes."""
        link = self._links.get(peer)
        if link is None:
            return
        try:
            await link.ask("POST", PATH, data=raw, timeout_s=TIMEOUT_S)
        except RollcallError as error:
            log.debug("not passed on", peer=peer, reason=str(error))

    def operations(self) -> Operations:
        """For the door for peers."""
        return {("POST", PATH): (self._take, MAX_MESSAGE_BYTES)}

    async def _take(self, _: str, __: Mapping[str, str], raw: bytes) -> bytes:
        """The ack goes straight to the origin, which waits for it; who passed the message on does not."""
        if not self._mesh.holds(raw):
            ack = await self._mesh.receive(raw)
            origin = read_message(raw).payload.origin
            hints = self._directory.candidates(origin)[:ADDRESSES]
            self._datagrams.send(ACK, ack, [(hint.host, hint.port) for hint in hints])
        return b"{}"

    async def close(self) -> None:
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
