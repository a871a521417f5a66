"""Failure broadcasts for an operator's own tools: each red once and each end once, by a number that lasts."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

import structlog

from agent.store import Store
from shared.clock import Clock, wait_at_most
from shared.errors import RollcallError
from shared.messages import Clear, KindWord, Red, read_message
from shared.wire import NodeName, Reason, Sha256, Wire

log = structlog.get_logger()

MAX_CONSUMERS = 16
PAGE = 64
"""Events that are read, and kept in memory, for one consumer at a time."""
HEARTBEAT_S = 15.0
RETRY_S = 1.0


class Event(StrEnum):
    RED = "red"
    CLEAR = "clear"


class EndedBy(StrEnum):
    """Who ended a red: who signed it, operators for all, or this node's administrator for this node."""

    ORIGIN = "origin"
    OPERATOR = "operator"
    HERE = "here"


class RedEvent(Wire):
    """`id` only goes up on one node, over restarts too. `at` is when this node learnt it, `issued` when the red
    was signed, both in seconds; `kind` and `release` are the red's, `reason` is the event's own."""

    id: int
    event: Event
    key: str
    origin: NodeName
    own: bool
    kind: KindWord
    reason: Reason
    release: Sha256 | None
    issued: float
    at: float
    by: EndedBy | None = None


class RedList(Wire):
    """Open reds, oldest first. Who then reads on after `last` misses nothing."""

    node: NodeName
    last: int
    reds: list[RedEvent]


@dataclass(frozen=True)
class Page:
    """`after` is where to go on once all of `events` were taken."""

    events: list[RedEvent]
    after: int


class CrowdedError(RollcallError):
    """As many consumers as there may be."""

    code = "crowded"
    http_status = 503


_EVENTS = """
SELECT i.id, i.event, i.key, i.cause, i.at, r.raw AS red, c.raw AS clear, d.reason AS dismissed
FROM inbox i JOIN envelopes r ON r.key = i.key
LEFT JOIN envelopes c ON i.event = 'clear' AND c.key = i.cause
LEFT JOIN dismissed d ON i.event = 'clear' AND d.key = i.key
"""
_OPEN = """
WHERE i.event = 'red' AND i.id <= ?1 AND NOT EXISTS (
  SELECT 1 FROM inbox o WHERE o.event = 'clear' AND o.key = i.key AND o.id <= ?1)
ORDER BY i.id
"""


class Inbox:
    """Reads what the database's triggers note of every red and every end."""

    def __init__(self, store: Store, node: str) -> None:
        self._store, self._node = store, node

    async def after(self, number: int) -> list[RedEvent]:
        """The next events, oldest first, PAGE at most."""
        rows = await self._store.rows(
            f"{_EVENTS} WHERE i.id > ? ORDER BY i.id LIMIT {PAGE}", number
        )
        return [self._event(row) for row in rows]

    async def listing(self) -> RedList:
        """As it was at `last`, whatever comes in between."""
        last = await self.last()
        rows = await self._store.rows(f"{_EVENTS} {_OPEN}", last)
        return RedList(node=self._node, last=last, reds=[self._event(row) for row in rows])

    async def envelope(self, key: str) -> str | None:
        """A red as its origin signed it, open or not; None for one that is not here."""
        rows = await self._store.rows(
            "SELECT raw FROM envelopes WHERE type = 'red' AND key = ?", key
        )
        return str(rows[0]["raw"]) if rows else None

    async def last(self) -> int:
        rows = await self._store.rows("SELECT COALESCE(MAX(id), 0) AS last FROM inbox")
        return int(rows[0]["last"])

    def _event(self, row: sqlite3.Row) -> RedEvent:
        red = read_message(row["red"].encode())
        body = red.payload.body
        kind, reason = (body.kind, body.reason) if isinstance(body, Red) else ("unknown", "")
        by = None
        if row["event"] == Event.CLEAR:
            reason = row["dismissed"] or ""
            by = EndedBy(row["cause"]) if row["cause"] in tuple(EndedBy) else EndedBy.ORIGIN
            if row["clear"] is not None:
                ended = read_message(row["clear"].encode()).payload.body
                reason = ended.reason if isinstance(ended, Clear) else ""
        return RedEvent(
            id=row["id"],
            event=Event(row["event"]),
            key=row["key"],
            origin=red.payload.origin,
            own=red.payload.origin == self._node,
            kind=kind,
            reason=reason,
            release=body.release if isinstance(body, Red) else None,
            issued=red.payload.issued,
            at=row["at"],
            by=by,
        )


class Feed:
    """Wakes consumers; each of them reads the inbox at its own pace, so a slow one costs nobody anything."""

    def __init__(self, inbox: Inbox, clock: Clock) -> None:
        self.inbox, self._clock = inbox, clock
        self._changed = asyncio.Event()
        self._consumers: set[asyncio.Event] = set()
        self._newest = 0
        self._closed = False

    def changed(self) -> None:
        """There may be an event. Only wakes `run`."""
        self._changed.set()

    def close(self) -> None:
        """End all streams; their readers come again."""
        self._closed = True
        self._wake_all()

    async def run(self) -> None:
        """For ever: look once for all consumers whether there is something new."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                newest = await self.inbox.last()
            except RollcallError as error:
                log.error("consumers of reds wait", reason=str(error))
                await self._clock.sleep(RETRY_S)
                self._changed.set()
                continue
            if newest > self._newest:
                self._newest = newest
                self._wake_all()

    def _wake_all(self) -> None:
        for wake in self._consumers:
            wake.set()

    @asynccontextmanager
    async def subscribe(self, after: int | None) -> AsyncGenerator[AsyncIterator[Page]]:
        """Pages of events from `after` on; without it, or where it is above all numbers that there are, first
        what is open. An empty page where nothing happened for HEARTBEAT_S. Raises CrowdedError."""
        if len(self._consumers) >= MAX_CONSUMERS:
            raise CrowdedError(
                f"{MAX_CONSUMERS} consumers read reds already",
                remedy="let some of them share one stream",
            )
        wake = asyncio.Event()
        self._consumers.add(wake)
        try:
            async with aclosing(self._read(after, wake)) as pages:
                yield pages
        finally:
            self._consumers.discard(wake)

    async def _read(self, after: int | None, wake: asyncio.Event) -> AsyncGenerator[Page]:
        listing = await self.inbox.listing()
        if after is None or after > listing.last:
            after = listing.last
            yield Page(listing.reds, after)
        while not self._closed:
            wake.clear()
            while events := await self.inbox.after(after):
                after = events[-1].id
                yield Page(events, after)
            await wait_at_most(wake, HEARTBEAT_S)
            if not wake.is_set():
                yield Page([], after)
