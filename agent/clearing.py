"""Operators' clears: taken from the coordinator, from peers and by hand, believed for their signatures alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog
from tuf.api.metadata import Root

from agent.clears import MAX_HANDED, clears_of, clears_to_upload, clears_uploaded, keep_clear
from agent.peers.asked import Operations
from agent.peers.mesh import Mesh
from agent.peers.transport import Transport
from agent.store import Store
from agent.trust import Trust
from shared.canonical import parse_json, sha256_hex
from shared.clock import Clock
from shared.errors import BadInputError, RollcallError
from shared.operatorclear import MAX_CLEAR_BYTES, open_clear
from shared.report import MAX_ASKED_REDS
from shared.wire import RedKey, Wire

log = structlog.get_logger()

ASK = "/v1/peer/clears/wanted"
TAKE = "/v1/peer/clears"
MAX_REFUSED = 256
"""Of which it is remembered that they were refused."""
MAX_ASK_BYTES = 16 << 10
MAX_ANSWER_BYTES = MAX_HANDED * 2 * MAX_CLEAR_BYTES


class Wanted(Wire):
    """Keys of the reds that the asker holds open."""

    reds: list[RedKey]


@dataclass(frozen=True)
class Offered:
    """What one sync says of clears: the reds that are open here, and clears that the coordinator may not have."""

    open_reds: list[str]
    clears: list[str]


class OperatorClears:
    """`root` is the newest TUF root that this node trusts, `wanted` are the peers to ask. A clear under keys of a newer
    root comes again, as long as its red is open here."""

    def __init__(
        self,
        trust: Trust,
        store: Store,
        mesh: Mesh,
        transport: Transport,
        clock: Clock,
        root: Callable[[], Awaitable[Root]],
        wanted: Callable[[], list[str]],
        *,
        every_s: float,
    ) -> None:
        self._trust, self._store, self._mesh = trust, store, mesh
        self._transport, self._clock, self._root = transport, clock, root
        self._wanted, self._every_s = wanted, every_s
        self._refused: set[str] = set()

    async def take(self, raw: bytes, *, uploaded: bool = False) -> str:
        """Verify, keep, end the red. Returns the red's key.

        Raises UntrustedError or BadInputError for what is not to be believed.
        """
        clear = open_clear(raw, await self._root(), self._trust.fleet.fleet)
        work = partial(
            keep_clear, clear=clear, raw=raw.decode(), at=self._clock.now(), uploaded=uploaded
        )
        if await self._store.change(work):
            log.warning("red cleared by operators", key=clear.ref, reason=clear.reason)
            self._mesh.ended(clear.ref)
        return clear.ref

    async def hand_in(self, raw: bytes) -> str:
        """One that came by hand: told to every peer at once, for the coordinator may be away."""
        key = await self.take(raw)
        peers = self._trust.peer_names()
        await asyncio.gather(*(self._tell(peer, raw) for peer in peers))
        return key

    async def _tell(self, peer: str, raw: bytes) -> None:
        try:
            await self._transport.ask(peer, "POST", TAKE, data=raw)
        except (RollcallError, OSError) as error:
            log.info("a clear was not handed on", peer=peer, reason=str(error))

    async def offer(self) -> Offered:
        reds = [red.key for red in self._mesh.open_reds()][:MAX_ASKED_REDS]
        return Offered(reds, await self._store.read(clears_to_upload))

    async def answered(self, offered: Offered, stored: list[str], clears: list[str]) -> None:
        """What the coordinator has of ours now, and what it has for us."""
        known = [raw for raw in offered.clears if sha256_hex(raw.encode()) in stored]
        if known:
            await self._store.change(partial(clears_uploaded, raws=known))
        await self._learn(clears, "the coordinator", uploaded=True)

    async def _learn(self, raws: list[str], source: str, *, uploaded: bool) -> None:
        for raw in raws[:MAX_HANDED]:
            try:
                await self.take(raw.encode(), uploaded=uploaded)
            except RollcallError as error:
                self._complain(raw, source, error)

    def _complain(self, raw: str, source: str, error: RollcallError) -> None:
        """Once: it comes again as long as its red is open, in case other operators are trusted by then."""
        sha256 = sha256_hex(raw.encode())
        if sha256 in self._refused:
            return
        if len(self._refused) >= MAX_REFUSED:
            self._refused.clear()
        self._refused.add(sha256)
        self._mesh.dropped[error.code] += 1
        log.warning("an operator's clear was refused", source=source, reason=str(error))

    async def run(self) -> None:
        """While a red is open here, ask the wanted peers every `every_s` seconds whether operators have cleared it."""
        while True:
            await self._clock.sleep(self._every_s)
            reds = [red.key for red in self._mesh.open_reds()][:MAX_ASKED_REDS]
            for peer in self._wanted() if reds else []:
                await self._ask(peer, reds)

    async def _ask(self, peer: str, reds: list[str]) -> None:
        """An older peer has no such door, and says so."""
        try:
            raw = await self._transport.ask(
                peer,
                "POST",
                ASK,
                data=json.dumps({"reds": reds}).encode(),
                max_answer=MAX_ANSWER_BYTES,
            )
            found = parse_json(raw, max_bytes=MAX_ANSWER_BYTES, max_depth=4)
        except (RollcallError, OSError) as error:
            log.debug("no clears asked for", peer=peer, reason=str(error))
            return
        if isinstance(found, list):
            await self._learn([str(each) for each in found], peer, uploaded=False)

    def operations(self) -> Operations:
        """What peers may ask for."""
        return {
            ("POST", ASK): (self._answer, MAX_ASK_BYTES),
            ("POST", TAKE): (self._receive, MAX_CLEAR_BYTES),
        }

    async def _answer(self, _: str, __: Mapping[str, str], body: bytes) -> bytes:
        wanted = Wanted.from_bytes(body, max_bytes=MAX_ASK_BYTES).reds
        if len(wanted) > MAX_ASKED_REDS:
            raise BadInputError(f"more than {MAX_ASKED_REDS} reds")
        found = await self._store.read(partial(clears_of, keys=wanted))
        return json.dumps(found).encode()

    async def _receive(self, _: str, __: Mapping[str, str], body: bytes) -> bytes:
        key = await self.take(body)
        return json.dumps({"cleared": key}).encode()
