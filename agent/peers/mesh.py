"""Messages between peers: sign them, accept each once, and know which reds are open.

Deviation from a plain high-water mark, see docs/decisions: events are a set keyed
(origin, epoch, sequence) that is kept whole, so that one which arrives late through another peer is
not lost to one that overtook it; the mark (`floors`) moves only when old closed events are pruned.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable

import structlog

from agent.deliveries import Added
from agent.peers.known import Known
from agent.peers.outbox import Outbox
from agent.store import Store, StoreError
from agent.trust import Trust
from shared.clock import Clock
from shared.errors import (
    BadInputError,
    ConflictError,
    ExpiredError,
    NotFoundError,
    UntrustedError,
)
from shared.messages import (
    Ack,
    Body,
    Clear,
    Message,
    Payload,
    Red,
    RedKind,
    StaleError,
    TooManyError,
    WrongOriginError,
    open_message,
    read_message,
    sign_message,
)
from shared.report import Broadcast

log = structlog.get_logger()

MAX_EVENTS = 500
RECENT_BROADCASTS = 16
MAX_OPEN = 64
"""Open reds that are kept of one origin."""
SKEW_S = 300.0
"""How far two clocks may be apart before what expires is refused. A red does not expire."""


class Mesh:
    """`on_message` is called once for each new message of a peer, after it is durable and before its
    ack is signed. `on_change` is called when the open reds or the acks changed."""

    def __init__(
        self,
        trust: Trust,
        store: Store,
        outbox: Outbox,
        clock: Clock,
        epoch: int,
        *,
        on_message: Callable[[Message], None],
        on_change: Callable[[], None],
        dropped: Counter[str],
    ) -> None:
        self._trust, self._store = trust, store
        self._outbox, self._clock, self._epoch = outbox, clock, epoch
        self._on_message, self._on_change = on_message, on_change
        self._sequence = 0
        self._open: dict[str, Message] = {}
        self._floors: dict[str, tuple[int, int]] = {}
        self._known = Known()
        self._receiving: dict[bytes, asyncio.Task[bytes]] = {}
        """What comes again meanwhile waits for the same answer."""
        trust.listen(self._known.clear)
        self.dropped = dropped

    async def load(self) -> None:
        self._open = await self._read_open()
        self._floors = await self._store.floors()
        self._rehearse()

    def _rehearse(self) -> None:
        """What is made on first use is made now: the first red takes no longer than the next."""
        red = self._sign(Red(kind=RedKind.READINESS, reason="never sent"))
        for message in (red, self._sign(Ack(ref=red.key, sha256=red.sha256))):
            with contextlib.suppress(UntrustedError):
                open_message(message.raw.encode(), self._trust.roster)

    async def prune(self, before: float) -> int:
        """Forget what is closed and older than `before`, in seconds since the epoch. Returns how many."""
        gone = await self._store.prune(before)
        self._known.clear()
        self._floors = await self._store.floors()
        return gone

    def open_reds(self) -> list[Message]:
        return list(self._open.values())

    def frozen_by(self) -> list[Message]:
        """Reds of peers: while there is one, this node starts no upgrade and moves no weight (P3)."""
        return [red for red in self._open.values() if red.payload.origin != self._trust.name]

    def own_reds(self) -> list[Message]:
        return [red for red in self._open.values() if red.payload.origin == self._trust.name]

    async def broadcast(self, body: Body, *, expires_in_s: float | None = None) -> Message:
        """Sign, make durable, and owe it to every peer of the roster, found yet or not."""
        return await self._send(body, self._trust.peer_names(), expires_in_s)

    async def send(self, peer: str, body: Body, *, expires_in_s: float | None = None) -> Message:
        return await self._send(body, [peer], expires_in_s)

    async def send_to(
        self, peers: list[str], body: Body, *, expires_in_s: float | None = None
    ) -> Message:
        return await self._send(body, peers, expires_in_s)

    async def clear(self, key: str, reason: str) -> None:
        """End one of this node's own reds for all, or, for this node alone, a red whose key the roster
        does not name any more: of a node that was revoked or installed anew. Nobody else is left to
        clear that one, and a change of the roster must not be a way to hide a red.

        Raises NotFoundError for a red that is not open, ConflictError for one of a live peer.
        """
        if key not in self._open:
            raise NotFoundError(
                f"no open red {key[:80]} here", remedy="list them: rollcall-agent reds"
            )
        origin, signer = key.partition(":")[0], self._open[key].keyid
        if signer == self._trust.key.public.keyid:
            await self.broadcast(Clear(ref=key, reason=reason))
            return
        if self._trust.signs(origin, signer):
            raise ConflictError(
                f"{key} is a red of {origin}",
                remedy=f"clear it there, on {origin}; or as an operator, for all nodes:"
                f" rollcall red clear {key}",
            )
        await self._store.dismiss(key, reason, self._clock.now())
        self.ended(key)

    def ended(self, key: str) -> None:
        """A red is over here by what somebody else than its origin has said."""
        self._open.pop(key, None)
        self._on_change()

    async def _send(self, body: Body, peers: list[str], expires_in_s: float | None) -> Message:
        """An alarm leaves while the disk writes it: a disk that flushes takes longer than a network. What this node
        loses of it comes back from whoever has heard it (`_take_back`); what cannot be written counts here as long as
        this process lives, so that it is not raised again and again."""
        decided_at = self._clock.monotonic()
        message = self._sign(body, expires_in_s)
        keeping = asyncio.ensure_future(self._store.add(message, self._clock.now(), peers))
        self._outbox.send(message, peers, decided_at)
        try:
            added = await keeping
        except StoreError:
            self._note_red(message, Added(new=True, open=True))
            raise
        self._known.add(message.raw.encode())
        self._note_red(message, added)
        self._outbox.owes(message.key)
        return message

    def _sign(self, body: Body, expires_in_s: float | None = None) -> Message:
        self._sequence += 1
        now = self._clock.now()
        payload = Payload(
            fleet=self._trust.fleet.fleet,
            origin=self._trust.name,
            epoch=self._epoch,
            sequence=self._sequence,
            issued=now,
            expires=None if expires_in_s is None else now + expires_in_s,
            body=body,
        )
        return sign_message(payload, self._trust.key)

    async def receive(self, raw: bytes) -> bytes:
        """Verify, keep, act, and return this node's signed ack. Known messages are acked again.

        Raises UntrustedError or BadInputError for what is dropped; `dropped` counts those by reason.
        """
        if (given := self._known.ack(raw)) is not None:
            return given
        if (receiving := self._receiving.get(raw)) is None:
            receiving = self._receiving[raw] = asyncio.ensure_future(self._receive(raw))
            receiving.add_done_callback(lambda _: self._receiving.pop(raw))
        return await asyncio.shield(receiving)

    async def _receive(self, raw: bytes) -> bytes:
        roster = self._trust.roster
        try:
            message = open_message(raw, roster)
            self._check_fresh(message)
        except (UntrustedError, BadInputError) as error:
            self.dropped[error.code] += 1
            raise
        await self._keep(message)
        ack = self._sign(Ack(ref=message.key, sha256=message.sha256)).raw.encode()
        if roster is self._trust.roster:
            self._known.add(raw, ack)
        return ack

    def holds(self, raw: bytes) -> bool:
        """Whether these very bytes were accepted, under the roster of now."""
        return raw in self._known

    def _check_fresh(self, message: Message) -> None:
        payload = message.payload
        if message.keyid == self._trust.key.public.keyid:
            raise WrongOriginError("a message of this node came back to it")
        if isinstance(payload.body, Ack):
            raise BadInputError("an ack is an answer, not a message")
        if isinstance(payload.body, Clear) and not payload.body.ref.startswith(
            f"{payload.origin}:"
        ):
            raise WrongOriginError(f"{payload.origin!r} may clear only its own reds")
        if isinstance(payload.body, Red) and self._crowded(message):
            raise TooManyError(f"{payload.origin!r} has {MAX_OPEN} open reds already")
        if (payload.epoch, payload.sequence) <= self._floors.get(payload.origin, (0, 0)):
            raise StaleError("an old message, long closed")
        expires = payload.expires
        if expires is not None and expires + SKEW_S < self._clock.now():
            raise ExpiredError("a message whose time is over")

    def _crowded(self, message: Message) -> bool:
        """One red freezes as well as a thousand; what is known already is acked again."""
        origin = message.payload.origin
        held = sum(red.payload.origin == origin for red in self._open.values())
        return held >= MAX_OPEN and message.key not in self._open

    async def _keep(self, message: Message) -> None:
        added = await self._store.add(message, self._clock.now(), [])
        if not added.new:
            return
        self._note_red(message, added)
        self._on_message(message)
        asyncio.get_running_loop().call_soon(_tell, message)

    async def events(self) -> list[str]:
        """Open reds and recent clears, for a peer that compares notes."""
        return await self._store.events(MAX_EVENTS)

    async def recent_broadcasts(self) -> list[Broadcast]:
        """What this node said to all, newest first, with the peers that signed for it."""
        return await self._store.broadcasts(self._trust.name, RECENT_BROADCASTS)

    def unacked(self) -> set[str]:
        """Keys of what this agent has sent since it started and not every peer has acked."""
        return self._outbox.unacked()

    def peer_found(self, peer: str) -> None:
        """An address was learnt."""
        self._outbox.nudge(peer)

    async def learn(self, raw: bytes) -> None:
        """A red or a clear that a peer holds, of whomever; what does not hold is dropped and counted."""
        if raw in self._known:
            return
        roster = self._trust.roster
        try:
            message = open_message(raw, roster)
            if message.keyid == self._trust.key.public.keyid:
                await self._take_back(message)
            elif isinstance(message.payload.body, Red | Clear):
                self._check_fresh(message)
                await self._keep(message)
                if roster is self._trust.roster:
                    self._known.add(raw)
        except (UntrustedError, BadInputError) as error:
            self.dropped[error.code] += 1

    async def _take_back(self, message: Message) -> None:
        """One of this node's own, of an earlier life: its database may have been lost, or the power before it was
        written. A red that is open here can be ended here."""
        payload = message.payload
        place = (payload.epoch, payload.sequence)
        closed = place <= self._floors.get(payload.origin, (0, 0))
        if closed or payload.epoch == self._epoch or not isinstance(payload.body, Red | Clear):
            return
        added = await self._store.add(message, self._clock.now(), [])
        if added.new:
            log.warning("an own message came back", type=payload.body.type, key=message.key)
            self._note_red(message, added)
        self._known.add(message.raw.encode())

    def _note_red(self, message: Message, added: Added) -> None:
        """A red opens unless its clear was here first; a clear ends the red that the same key has signed."""
        match message.payload.body:
            case Red() if added.open:
                self._open[message.key] = message
            case Clear(ref=ref) if ref in self._open and self._open[ref].keyid == message.keyid:
                del self._open[ref]
            case _:
                return
        self._on_change()

    async def _read_open(self) -> dict[str, Message]:
        """Verified when they came. One stays open when its origin was revoked or changed its key: who
        signs the roster must not be able to hide a red (P6)."""
        messages = [read_message(raw.encode()) for raw in await self._store.open_reds()]
        return {message.key: message for message in messages}


def _tell(message: Message) -> None:
    """To the log, after the ack has gone."""
    log.info("message", type=message.payload.body.type, key=message.key)
