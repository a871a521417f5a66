"""Rollouts, messages and counters: what the engine and the fleet's state ask of the tables."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert as upsert

from coordinator.store.database import Database
from coordinator.store.tables import (
    history,
    messages,
    meta,
    rollouts,
)
from coordinator.store.together import Together
from shared.canonical import sha256_hex
from shared.messages import Message
from shared.rollout import Rollout

MAX_VARIABLES = 500
"""Of one statement; SQLite has a bound."""


@dataclass(frozen=True)
class StoredMessage:
    key: str
    origin: str
    type: str
    ref: str
    raw: str


class Queries:
    """Keeps in memory what `messages_of` has read: whoever reads messages asks the one that writes them."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._messages: dict[tuple[str, ...], list[StoredMessage]] = {}
        self._together: Together[list[dict[str, object]]] = Together(self._keep, "messages")

    async def next_number(self, key: str, at_least: int) -> int:
        """A counter that never repeats, also not after a restart, nor when the database was put back
        from a backup: it starts over from `at_least`, which is the time."""
        async with self._db.write() as db:
            before = await db.scalar(select(meta.c.value).where(meta.c.key == key))
            number = max(int(before or 0) + 1, at_least)
            statement = upsert(meta).values(key=key, value=str(number))
            await db.execute(
                statement.on_conflict_do_update(index_elements=["key"], set_={"value": str(number)})
            )
            return number

    async def keep_messages(self, found: list[Message], now: float) -> None:
        if not found:
            return
        rows = [
            {
                "sha256": message.sha256,
                "key": message.key,
                "origin": message.payload.origin,
                "type": message.payload.body.type,
                "ref": message.ref,
                "raw": message.raw,
                "at": now,
            }
            for message in found
        ]
        await self._together.keep(rows)

    async def keep_envelope(self, *, key: str, type_: str, ref: str, raw: str, now: float) -> None:
        """One that no node has signed."""
        row = {
            "sha256": sha256_hex(raw.encode()),
            "key": key,
            "origin": "",
            "type": type_,
            "ref": ref,
            "raw": raw,
            "at": now,
        }
        await self._together.keep([row])

    async def close(self) -> None:
        """When nobody writes messages any more."""
        await self._together.close()

    async def _keep(self, of_all: list[list[dict[str, object]]]) -> None:
        rows = [row for rows in of_all for row in rows]
        written = {row["type"] for row in rows}
        async with self._db.write() as db:
            await db.execute(upsert(messages).on_conflict_do_nothing(), rows)
            for types in [each for each in self._messages if written & set(each)]:
                del self._messages[types]

    async def messages_of(self, *types: str) -> list[StoredMessage]:
        """In the order they came. Not to be changed: it is the list that is kept."""
        known = self._messages.get(types)
        if known is None:
            async with self._db.read() as db:
                asked = select(messages).where(messages.c.type.in_(types))
                rows = (await db.execute(asked.order_by(messages.c.at))).all()
                known = [StoredMessage(r.key, r.origin, r.type, r.ref, r.raw) for r in rows]
                self._messages[types] = known
        return known

    async def messages_about(self, orders: list[str]) -> list[StoredMessage]:
        """Claims and attestations of these orders, in the order they came."""
        found: list[StoredMessage] = []
        if not orders:
            return found
        async with self._db.read() as db:
            for begin in range(0, len(orders), MAX_VARIABLES):
                asked = select(messages).where(
                    messages.c.type.in_(("proven", "attestation")),
                    messages.c.ref.in_(orders[begin : begin + MAX_VARIABLES]),
                )
                rows = (await db.execute(asked.order_by(messages.c.at))).all()
                found += [StoredMessage(r.key, r.origin, r.type, r.ref, r.raw) for r in rows]
        return found

    async def last_rollout(self) -> tuple[Rollout, int] | None:
        found = await self.recent_rollouts(1)
        return found[0] if found else None

    async def rollout(self, id_: str) -> Rollout | None:
        async with self._db.read() as db:
            body = await db.scalar(select(rollouts.c.body).where(rollouts.c.id == id_))
        return None if body is None else Rollout.model_validate(body)

    async def recent_rollouts(self, limit: int) -> list[tuple[Rollout, int]]:
        async with self._db.read() as db:
            rows = (
                await db.execute(select(rollouts).order_by(rollouts.c.created.desc()).limit(limit))
            ).all()
        return [(Rollout.model_validate(row.body), row.generation) for row in rows]

    async def history_of(self, rollout: str) -> list[dict[str, object]]:
        async with self._db.read() as db:
            rows = (
                await db.execute(
                    select(history).where(history.c.rollout == rollout).order_by(history.c.id)
                )
            ).all()
        return [
            {
                "at": row.at,
                "node": row.node or None,
                "state": row.state,
                "reason": row.reason,
                "who": row.who,
            }
            for row in rows
        ]
