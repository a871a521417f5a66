"""What the coordinator has of reds and their ends, whoever signed them; the signatures were good when they came."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.store.queries import Queries
from shared.canonical import sha256_hex
from shared.clock import Clock
from shared.messages import Ack, Clear, Message, Red, read_message
from shared.operatorclear import OperatorClear, identity, read_clear
from shared.report import MAX_CLEARS
from shared.rollout import RedEnd, RedView

OPERATOR_CLEAR = "operator-clear"
"""Among the messages; its key cannot be a node's, whose name has no @."""


class Reds:
    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries, self._clock = queries, clock
        self._messages: dict[str, Message] = {}
        self._clears: dict[str, OperatorClear] = {}
        """Both parsed once."""
        self.number = 0
        """Goes up with every clear that operators hand in, since the start."""

    async def keep(self, clear: OperatorClear, raw: str) -> None:
        """One whose signatures the caller has checked."""
        payload = sha256_hex(clear.canonical())
        await self._queries.keep_envelope(
            key=f"clear@{payload}",
            type_=OPERATOR_CLEAR,
            ref=clear.ref,
            raw=raw,
            now=self._clock.now(),
        )
        self.number += 1

    async def clears(self, keys: Iterable[str]) -> list[str]:
        """Operators' clears of these reds, as they were signed."""
        wanted = set(keys)
        if not wanted:
            return []
        stored = await self._queries.messages_of(OPERATOR_CLEAR)
        return [each.raw for each in stored if each.ref in wanted][:MAX_CLEARS]

    async def ended_by_operators(self) -> set[tuple[str, str]]:
        """Key and hash of each red that they have cleared."""
        for stored in await self._queries.messages_of(OPERATOR_CLEAR):
            if stored.key not in self._clears:
                self._clears[stored.key] = read_clear(stored.raw.encode())
        return {(clear.ref, clear.sha256) for clear in self._clears.values()}

    async def find(self, key: str) -> str | None:
        """A red's envelope."""
        stored = await self._queries.messages_of("red")
        return next((each.raw for each in stored if each.key == key), None)

    async def all(self) -> list[RedView]:
        """Of every origin that there was: a node that was revoked has left its reds with others."""
        found = []
        for stored in await self._queries.messages_of("red", "clear", "ack"):
            if stored.key not in self._messages:
                self._messages[stored.key] = read_message(stored.raw.encode())
            found.append(self._messages[stored.key])
        return red_views(found, await self.ended_by_operators())


def red_views(messages: list[Message], by_operators: set[tuple[str, str]]) -> list[RedView]:
    """Reds in the order they came, with who holds them and what ended them. A clear counts under the very key that
    signed the red."""
    reds = [message for message in messages if isinstance(message.payload.body, Red)]
    cleared = {
        (body.ref, message.keyid)
        for message in messages
        if isinstance(body := message.payload.body, Clear)
    }
    maybe = {key for key, _ in by_operators}
    acked: dict[str, set[str]] = {}
    for message in messages:
        if isinstance(body := message.payload.body, Ack):
            acked.setdefault(body.ref, set()).add(message.payload.origin)
    views = []
    for red in reds:
        ended = RedEnd.ORIGIN if (red.key, red.keyid) in cleared else None
        if ended is None and red.key in maybe and identity(red.raw) in by_operators:
            ended = RedEnd.OPERATOR
        views.append(_view(red, ended, acked.get(red.key, set())))
    return views


def _view(red: Message, ended: RedEnd | None, acked: set[str]) -> RedView:
    body = red.payload.body
    if not isinstance(body, Red):
        raise TypeError("not a red")
    return RedView(
        key=red.key,
        origin=red.payload.origin,
        kind=body.kind,
        reason=body.reason,
        issued=red.payload.issued,
        open=ended is None,
        ended_by=ended,
        acked_by=sorted(acked),
    )
