"""What this node owes its peers: sent at once, again until it is acked, and remembered over a restart.

A red goes out as a datagram first, to all at once and again every few hundredths of a second; over the kept
connection only to who has not answered by then. Everything else takes the connection. Who cannot be reached
directly is reached through others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from agent.deliveries import Acked, Delivery
from agent.peers.datagrams import MAX_DATAGRAM, MESSAGE, Datagrams
from agent.peers.directory import Directory
from agent.peers.known import Known
from agent.peers.relay import Relay
from agent.store import Store
from agent.trust import Trust
from shared.backoff import Backoff
from shared.canonical import sha256_hex
from shared.clock import Clock, wait_at_most
from shared.errors import BadInputError, RollcallError, UntrustedError
from shared.http import RefusedError
from shared.messages import Ack, Clear, Message, Red, open_message

log = structlog.get_logger()

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0
IDLE_S = 60.0
"""Between two looks whether there is something after all: who owes something anew says so."""
MAX_SENT = 1000
GATHER_S = 0.02
"""So long acks are collected before they are stored: one sync of the disk, and no work while others come."""
RESENDS_S = (0.05, 0.04, 0.04, 0.05, 0.05, 0.05, 0.05, 0.1, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Pauses after each time that a datagram was sent to who has not acked it."""
PATIENT_SENDS = 5
"""So many datagrams before the kept connection tries as well."""
ALONE_S = sum(RESENDS_S[: PATIENT_SENDS - 1])
"""So long they are alone."""
ADDRESSES = 2
"""Of one peer that a datagram is sent to: where it answered last, and the next best."""
FINAL_REFUSALS = frozenset(
    {"unknown-key", "bad-signature", "revoked", "wrong-fleet", "wrong-origin", "stale", "expired"}
    | {"too-many", "bad-input"}
)


@dataclass
class _Sent:
    sha256: str
    at: float
    """On the monotonic clock."""
    waiting: set[str]
    shouted: bool = False
    """By datagrams, first."""


class Outbox:
    """`on_ack` is called after an ack was verified and kept."""

    def __init__(
        self,
        trust: Trust,
        store: Store,
        relay: Relay,
        directory: Directory,
        datagrams: Datagrams,
        clock: Clock,
        on_ack: Callable[[], None],
    ) -> None:
        self._trust, self._store, self._relay = trust, store, relay
        self._directory, self._datagrams, self._clock = directory, datagrams, clock
        self._on_ack = on_ack
        self._wake: dict[str, asyncio.Event] = {}
        self._sent: dict[str, _Sent] = {}
        self._given_up: dict[tuple[str, str], tuple[int, int]] = {}
        """By message and peer: the roster under which it was refused for good."""
        self._acks: list[Acked] = []
        self._keeping: asyncio.Task[None] | None = None
        self._taken = Known()
        trust.listen(self._taken.clear)
        self._shouting: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        tasks = [*self._shouting, *([self._keeping] if self._keeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def unacked(self) -> set[str]:
        """Keys of what was sent since the start and somebody has not acked."""
        return {key for key, sent in self._sent.items() if sent.waiting}

    def send(self, message: Message, peers: list[str], decided_at: float) -> None:
        """To these peers, at once if it is an alarm. `decided_at`, before it was signed, is on the monotonic clock:
        acks are timed from then."""
        self._sent[message.key] = _Sent(message.sha256, decided_at, set(peers))
        if len(self._sent) > MAX_SENT:
            del self._sent[next(iter(self._sent))]
        alarm = isinstance(message.payload.body, Red | Clear)
        if alarm and len(message.raw) <= MAX_DATAGRAM:
            self._sent[message.key].shouted = True
            task = asyncio.get_running_loop().create_task(self._shout(message))
            self._shouting.add(task)
            task.add_done_callback(self._shouting.discard)

    def owes(self, key: str) -> None:
        """The store has it: from now on the kept connections can take it. They do at once where there are no
        datagrams of it, or where those had their time."""
        if (sent := self._sent.get(key)) is None:
            return
        if not sent.shouted or self._clock.monotonic() - sent.at > ALONE_S:
            for peer in sent.waiting:
                self.nudge(peer)

    async def _shout(self, message: Message) -> None:
        raw, sent = message.raw.encode(), self._sent[message.key]
        for number, pause in enumerate(RESENDS_S, 1):
            for peer in sent.waiting:
                hints = self._directory.candidates(peer)[:ADDRESSES]
                self._datagrams.send(MESSAGE, raw, [(hint.host, hint.port) for hint in hints])
                if number >= PATIENT_SENDS or not hints:
                    self.nudge(peer)
            await self._clock.sleep(pause)
            if not sent.waiting:
                return

    async def take_ack(self, raw: bytes) -> None:
        """One that came as a datagram. Raises UntrustedError or BadInputError for one of somebody else, or
        of something that was never sent; one that came before is ignored."""
        if raw in self._taken:
            return
        ack = open_message(raw, self._trust.roster)
        body, peer = ack.payload.body, ack.payload.origin
        if not isinstance(body, Ack):
            raise BadInputError("something else than an ack")
        sent = self._sent.get(body.ref)
        if sent is None or sent.sha256 != body.sha256:
            raise BadInputError(f"{peer} acked what was not sent")
        if peer in sent.waiting:
            await self._acked(ack, body.ref, peer, self._clock.monotonic() - sent.at)
        self._taken.add(raw)

    async def _acked(self, ack: Message, key: str, peer: str, seconds: float) -> None:
        if sent := self._sent.get(key):
            sent.waiting.discard(peer)
        self._acks.append(Acked(ack, self._clock.now(), key, peer, max(0.0, seconds) * 1000))
        if self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep_acks())
        await asyncio.shield(self._keeping)

    async def _keep_acks(self) -> None:
        """All of the next few milliseconds together. An ack that is lost with this process is asked for again."""
        try:
            await asyncio.sleep(GATHER_S)
        finally:
            acks, self._acks, self._keeping = self._acks, [], None
        await self._store.acked(acks)
        self._on_ack()

    def nudge(self, peer: str) -> None:
        """Try now rather than at the next retry: there is something new, or an address was learnt."""
        self._wake.setdefault(peer, asyncio.Event()).set()

    async def deliver(self, peer: str) -> None:
        """Over the kept connection, for ever."""
        wake = self._wake.setdefault(peer, asyncio.Event())
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        while True:
            wake.clear()
            try:
                owes = await self._deliver_all(peer)
                backoff.succeeded()
                pause = LONGEST_RETRY_S if owes else IDLE_S
            except (RollcallError, OSError) as error:
                log.debug("not delivered", peer=peer, reason=str(error))
                pause = backoff.failed()
            await wait_at_most(wake, pause)

    async def _deliver_all(self, peer: str) -> bool:
        """One that the peer refuses must not hold up those behind it; it is offered again once there is
        another roster. Whether there was anything."""
        number = self._trust.roster.number
        owed = await self._store.undelivered(peer, self._clock.now())
        for delivery in owed:
            if self._given_up.get((delivery.key, peer)) == number:
                continue
            try:
                await self._deliver_one(delivery)
            except RefusedError as error:
                log.warning("refused", peer=peer, key=delivery.key, reason=str(error))
                if error.refused_code in FINAL_REFUSALS:
                    self._given_up[delivery.key, peer] = number
        return bool(owed)

    async def _deliver_one(self, delivery: Delivery) -> None:
        ack = await self._relay.deliver(
            delivery.peer, delivery.raw.encode(), partial(self._open_ack, delivery)
        )
        sent = self._sent.get(delivery.key)
        seconds = (
            self._clock.now() - delivery.at if sent is None else self._clock.monotonic() - sent.at
        )
        await self._acked(ack, delivery.key, delivery.peer, seconds)

    def _open_ack(self, delivery: Delivery, raw: bytes) -> Message:
        """Raises UntrustedError or BadInputError for what is not the peer's ack of just this."""
        ack = open_message(raw, self._trust.roster)
        body = ack.payload.body
        sha256 = sha256_hex(delivery.raw.encode())
        if not isinstance(body, Ack) or (body.ref, body.sha256) != (delivery.key, sha256):
            raise UntrustedError(f"{delivery.peer} answered with something else than an ack")
        if ack.payload.origin != delivery.peer:
            raise UntrustedError(f"{ack.payload.origin} acked in place of {delivery.peer}")
        return ack
