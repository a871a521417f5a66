"""Messages between peers: sign, deliver until acked, accept once, and compare notes.

Deviation from a plain high-water mark, see docs/decisions: events are a set keyed
(origin, epoch, sequence) that is kept whole, so that one which arrives late through another peer is
not lost to one that overtook it; the mark (`floors`) moves only when old closed events are pruned.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

from agent.peers.each import serve_each_peer
from agent.peers.transport import Transport
from agent.store import Delivery, Store
from agent.trust import Trust
from shared.backoff import Backoff
from shared.canonical import parse_json, sha256_hex
from shared.clock import Clock, sleep_until
from shared.errors import (
    BadInputError,
    ConflictError,
    ExpiredError,
    NotFoundError,
    RollcallError,
    UntrustedError,
)
from shared.http import RefusedError
from shared.messages import (
    Ack,
    Body,
    Clear,
    Message,
    Payload,
    Red,
    StaleError,
    TooManyError,
    WrongOriginError,
    open_message,
    read_message,
    sign_message,
)
from shared.report import Broadcast

log = structlog.get_logger()

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0
MAX_EVENTS = 500
MAX_EVENTS_BYTES = 4 << 20
RECENT_BROADCASTS = 16
MAX_OPEN = 64
"""Open reds that are kept of one origin."""
MAX_SENT = 1000
FINAL_REFUSALS = frozenset(
    {"unknown-key", "bad-signature", "revoked", "wrong-fleet", "wrong-origin", "stale", "expired"}
    | {"too-many", "bad-input"}
)
SKEW_S = 300.0
"""How far two clocks may be apart before what expires is refused. A red does not expire."""


class Mesh:
    """`on_message` is called once for each new message of a peer, after it is durable and before its
    ack is signed. `on_change` is called when the open reds or the acks changed."""

    def __init__(
        self,
        trust: Trust,
        store: Store,
        transport: Transport,
        clock: Clock,
        epoch: int,
        *,
        on_message: Callable[[Message], None],
        on_change: Callable[[], None],
        compare_every_s: float,
    ) -> None:
        self._trust, self._store, self._transport = trust, store, transport
        self._clock, self._epoch = clock, epoch
        self._on_message, self._on_change = on_message, on_change
        self._compare_every_s = compare_every_s
        self._sequence = 0
        self._signing = asyncio.Lock()
        self._open: dict[str, Message] = {}
        self._wake: dict[str, asyncio.Event] = {}
        self._sent_at: dict[str, float] = {}
        self._given_up: dict[tuple[str, str], tuple[int, int]] = {}
        """By message and peer: the roster under which it was refused for good."""
        self.dropped: Counter[str] = Counter()

    async def load(self) -> None:
        self._open = await self._read_open()

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
        origin, signer = key.partition(":")[0], await self._store.keyid_of(key)
        if signer == self._trust.key.public.keyid:
            await self.broadcast(Clear(ref=key, reason=reason))
            return
        if self._trust.signs(origin, signer):
            raise ConflictError(
                f"{key} is a red of {origin}", remedy=f"clear it there, on {origin}"
            )
        await self._store.dismiss(key, reason, self._clock.now())
        await self._reds_changed()

    async def _send(self, body: Body, peers: list[str], expires_in_s: float | None) -> Message:
        async with self._signing:
            message = self._sign(body, expires_in_s)
            self._sent_at[message.key] = self._clock.monotonic()
            if len(self._sent_at) > MAX_SENT:
                del self._sent_at[next(iter(self._sent_at))]
            await self._store.add(message, self._clock.now(), peers)
        if isinstance(body, Red | Clear):
            await self._reds_changed()
        for peer in peers:
            self._nudge(peer)
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
        try:
            message = open_message(raw, self._trust.roster)
            await self._check_fresh(message)
        except (UntrustedError, BadInputError) as error:
            self.dropped[error.code] += 1
            raise
        await self._keep(message)
        async with self._signing:
            ack = self._sign(Ack(ref=message.key, sha256=message.sha256))
        return ack.raw.encode()

    async def _check_fresh(self, message: Message) -> None:
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
        if await self._store.below_floor(payload.origin, payload.epoch, payload.sequence):
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
        if not await self._store.add(message, self._clock.now(), []):
            return
        if isinstance(message.payload.body, Red | Clear):
            await self._reds_changed()
        log.info("message", type=message.payload.body.type, key=message.key)
        self._on_message(message)

    async def events(self) -> list[str]:
        """Open reds and recent clears, for a peer that compares notes."""
        return await self._store.events(MAX_EVENTS)

    async def recent_broadcasts(self) -> list[Broadcast]:
        """What this node said to all, newest first, with the peers that signed for it."""
        return await self._store.broadcasts(self._trust.name, RECENT_BROADCASTS)

    async def run(self) -> None:
        """Deliver to every peer of the roster, and compare notes with each, for ever."""
        await serve_each_peer(self._trust, self._clock, "peer", self._serve)

    async def _serve(self, peer: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver(peer))
            group.create_task(self._compare(peer))

    def _nudge(self, peer: str) -> None:
        self._wake.setdefault(peer, asyncio.Event()).set()

    def peer_found(self, peer: str) -> None:
        """An address was learnt: try now rather than at the next retry."""
        self._nudge(peer)

    async def _deliver(self, peer: str) -> None:
        wake = self._wake.setdefault(peer, asyncio.Event())
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        while True:
            wake.clear()
            try:
                await self._deliver_all(peer)
                backoff.succeeded()
                pause = LONGEST_RETRY_S
            except (RollcallError, OSError) as error:
                log.debug("not delivered", peer=peer, reason=str(error))
                pause = backoff.failed()
            await sleep_until(wake, self._clock, pause)

    async def _deliver_all(self, peer: str) -> None:
        """One that the peer refuses must not hold up those behind it; it is offered again once there is
        another roster."""
        number = self._trust.roster.number
        for delivery in await self._store.undelivered(peer, self._clock.now()):
            if self._given_up.get((delivery.key, peer)) == number:
                continue
            try:
                await self._deliver_one(delivery)
            except RefusedError as error:
                log.warning("refused", peer=peer, key=delivery.key, reason=str(error))
                if error.refused_code in FINAL_REFUSALS:
                    self._given_up[delivery.key, peer] = number

    async def _deliver_one(self, delivery: Delivery) -> None:
        raw = await self._transport.ask(
            delivery.peer, "POST", "/v1/peer/messages", data=delivery.raw.encode()
        )
        ack = open_message(raw, self._trust.roster)
        body = ack.payload.body
        sha256 = sha256_hex(delivery.raw.encode())
        if not isinstance(body, Ack) or (body.ref, body.sha256) != (delivery.key, sha256):
            raise UntrustedError(f"{delivery.peer} answered with something else than an ack")
        if ack.payload.origin != delivery.peer:
            raise UntrustedError(f"{ack.payload.origin} acked in place of {delivery.peer}")
        sent = self._sent_at.get(delivery.key)
        seconds = (
            self._clock.now() - delivery.at if sent is None else self._clock.monotonic() - sent
        )
        await self._store.add(ack, self._clock.now(), [])
        await self._store.delivered(delivery.key, delivery.peer, max(0.0, seconds) * 1000)
        self._on_change()

    async def _compare(self, peer: str) -> None:
        """Anti-entropy: whoever was away learns on return, through whoever it reaches first."""
        while True:
            try:
                raw = await self._transport.ask(
                    peer, "GET", "/v1/peer/events", max_answer=MAX_EVENTS_BYTES
                )
                await self._learn(raw)
                pause = self._compare_every_s
            except (RollcallError, OSError) as error:
                log.debug("notes not compared", peer=peer, reason=str(error))
                pause = min(1.0, self._compare_every_s)
            await self._clock.sleep(pause)

    async def _learn(self, raw: bytes) -> None:
        value = parse_json(raw, max_bytes=MAX_EVENTS_BYTES, max_depth=4)
        if not isinstance(value, list):
            raise BadInputError("a peer's events are not a list")
        for each in value[: 2 * MAX_EVENTS]:
            try:
                message = open_message(str(each).encode(), self._trust.roster)
                if not isinstance(message.payload.body, Red | Clear):
                    continue
                await self._check_fresh(message)
                await self._keep(message)
            except (UntrustedError, BadInputError) as error:
                self.dropped[error.code] += 1

    async def _reds_changed(self) -> None:
        self._open = await self._read_open()
        self._on_change()

    async def _read_open(self) -> dict[str, Message]:
        """Verified when they came. One stays open when its origin was revoked or changed its key: who
        signs the roster must not be able to hide a red (P6)."""
        messages = [read_message(raw.encode()) for raw in await self._store.open_reds()]
        return {message.key: message for message in messages}
