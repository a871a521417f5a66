"""What happened to rollouts and alerts, in the order of their own tables: whoever was away goes on where it was.

A position is the last row of each table that somebody has had, written `ROLLOUTS.ALERTS`, such as `120.37`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, func, select

from coordinator.store.alerts import alert_events
from coordinator.store.database import Database
from coordinator.store.tables import history, rollouts
from shared.errors import BadInputError

NODE_CHANGED, ALERT_CHANGED = "rollout.node", "alert"
OF_NODES = ("at", "rollout", "node", "state", "reason")
OF_ALERTS = ("at", "alert", "change", "severity", "by", "reason")


@dataclass(frozen=True)
class Position:
    rollouts: int = 0
    alerts: int = 0

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises BadInputError for anything that was not an event's id."""
        found = re.fullmatch(r"([0-9]{1,15})\.([0-9]{1,15})", text, re.ASCII)
        if found is None:
            raise BadInputError("Last-Event-ID is not the id of an event, such as 120.37")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.rollouts}.{self.alerts}"


@dataclass(frozen=True)
class RolloutAt:
    rollout: str
    state: str
    generation: int


@dataclass(frozen=True)
class Event:
    """`position` is where its reader stands once it has had it."""

    position: Position
    kind: str
    body: dict[str, Any]


class EventLog:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def bounds(self) -> tuple[Position, Position]:
        """Where the oldest events that are kept begin, and where the newest end."""
        first, last = [], []
        async with self._db.read() as db:
            for table in (history, alert_events):
                ends = select(func.min(table.c.id), func.max(table.c.id))
                low, high = (await db.execute(ends)).one()
                first.append(0 if low is None else int(low) - 1)
                last.append(0 if high is None else int(high))
        return Position(*first), Position(*last)

    async def newest(self) -> RolloutAt | None:
        """The newest rollout, and how often it was written: what each node waits for changes without an event."""
        wanted = select(rollouts.c.id, rollouts.c.state, rollouts.c.generation)
        async with self._db.read() as db:
            row = (await db.execute(wanted.order_by(rollouts.c.created.desc()).limit(1))).first()
        return None if row is None else RolloutAt(row.id, row.state, row.generation)

    async def after(self, position: Position, limit: int) -> list[Event]:
        """At most `limit` of each kind, in each kind's order."""
        found: list[Event] = []
        at = position
        for row in await self._rows(history, at.rollouts, limit):
            at = Position(row.id, at.alerts)
            found.append(Event(at, NODE_CHANGED, {name: getattr(row, name) for name in OF_NODES}))
        for row in await self._rows(alert_events, at.alerts, limit):
            at = Position(at.rollouts, row.id)
            found.append(Event(at, ALERT_CHANGED, {name: getattr(row, name) for name in OF_ALERTS}))
        return found

    async def _rows(self, table: Table, after: int, limit: int) -> list[Any]:
        wanted = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        async with self._db.read() as db:
            return list((await db.execute(wanted)).all())
