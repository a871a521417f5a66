"""Through others: a message for a peer that does not answer directly is carried by one that reaches it, and the
peer's own ack comes back the same way (DESIGN.md, 6).

Nobody has to be believed for it: the ack is signed by the peer itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import structlog

from agent.peers.asked import Operations, Patience
from agent.peers.links import Links
from agent.peers.transport import Transport
from agent.trust import Trust
from shared.clock import Clock
from shared.errors import NotFoundError, RollcallError, UnavailableError, UntrustedError
from shared.messages import MAX_MESSAGE_BYTES, open_message

log = structlog.get_logger()

T = TypeVar("T")

MESSAGES = "/v1/peer/messages"
RELAY = "/v1/peer/relay"
PATIENCE_S = 1.0
"""How long the direct way alone may take."""
HELPERS = 3
"""Of those that this node is connected with, asked beside each other."""
CARRY_S = 5.0


class Relay:
    """`is_away` says that a peer is not there for others either: nobody is asked then."""

    def __init__(
        self,
        trust: Trust,
        transport: Transport,
        links: Links,
        clock: Clock,
        is_away: Callable[[str], bool],
    ) -> None:
        self._trust, self._transport, self._links = trust, transport, links
        self._is_away = is_away
        self._patience = Patience(clock)

    async def deliver(self, peer: str, raw: bytes, check: Callable[[bytes], T]) -> T:
        """Directly; through others as well where that fails or takes long. `check` makes an ack of an answer, or
        raises UntrustedError or BadInputError. Raises what the direct way raised where nobody could help."""
        direct = asyncio.ensure_future(self._directly(peer, raw, check))
        ways: set[asyncio.Future[T | None]] = set()
        try:
            await asyncio.wait({direct}, timeout=PATIENCE_S)
            if not direct.done() or isinstance(direct.exception(), UnavailableError):
                ways = {
                    asyncio.ensure_future(self._through(helper, peer, raw, check))
                    for helper in self._helpers(peer)
                }
                if (ack := await _first(direct, ways)) is not None:
                    return ack
            return await direct
        finally:
            begun: list[asyncio.Future[Any]] = [direct, *ways]
            for way in begun:
                way.cancel()
            await asyncio.gather(*begun, return_exceptions=True)

    async def _directly(self, peer: str, raw: bytes, check: Callable[[bytes], T]) -> T:
        return check(await self._transport.ask(peer, "POST", MESSAGES, data=raw))

    def _helpers(self, peer: str) -> list[str]:
        if self._is_away(peer):
            return []
        names = [
            name
            for name in self._trust.peer_names()
            if name != peer and not self._is_away(name) and self._links.get(name) is not None
        ]
        return random.sample(names, min(len(names), HELPERS))

    async def _through(
        self, helper: str, peer: str, raw: bytes, check: Callable[[bytes], T]
    ) -> T | None:
        try:
            answer = await self._transport.ask(
                helper, "POST", RELAY, params={"to": peer}, data=raw, timeout_s=CARRY_S
            )
            return check(answer)
        except (RollcallError, OSError) as error:
            log.debug("not relayed", peer=peer, by=helper, reason=str(error))
            return None

    def operations(self) -> Operations:
        """For the door for peers."""
        return {("POST", RELAY): (self._carry, MAX_MESSAGE_BYTES)}

    async def _carry(self, asker: str, params: Mapping[str, str], raw: bytes) -> bytes:
        """What the asker itself has signed, to one peer, directly: nothing goes in circles."""
        self._patience.spend(asker)
        peer = params.get("to", "")
        if peer not in self._trust.peer_names():
            raise NotFoundError(f"the roster names no {peer[:64]!r}")
        origin = open_message(raw, self._trust.roster).payload.origin
        if origin != asker:
            raise UntrustedError(f"{asker} asks to carry a message of {origin}, not its own")
        return await self._transport.ask(peer, "POST", MESSAGES, data=raw, timeout_s=CARRY_S)


async def _first(direct: asyncio.Future[T], ways: set[asyncio.Future[T | None]]) -> T | None:
    """What comes first of all that comes to something; None where none does."""
    waiting: set[asyncio.Future[T] | asyncio.Future[T | None]] = {direct, *ways}
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            if each.exception() is None and (ack := each.result()) is not None:
                return ack
    return None
