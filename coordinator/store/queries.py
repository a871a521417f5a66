"""Rollouts, messages and counters: what the engine and the fleet's state ask of the tables."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from coordinator.store.database import Database
from coordinator.store.tables import (
    history,
    messages,
    meta,
    rollouts,
)
from shared.canonical import sha256_hex
from shared.errors import ConflictError
from shared.messages import Message
from shared.rollout import Rollout, RolloutState


@dataclass(frozen=True)
class StoredMessage:
    key: str
    origin: str
    type: str
    ref: str
    raw: str


class Queries:
    def __init__(self, database: Database) -> None:
        self._db = database

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
        async with self._db.write() as db:
            await db.execute(upsert(messages).on_conflict_do_nothing(), rows)

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
        async with self._db.write() as db:
            await db.execute(upsert(messages).on_conflict_do_nothing(), [row])

    async def messages_of(self, *types: str) -> list[StoredMessage]:
        async with self._db.read() as db:
            rows = (
                await db.execute(
                    select(messages).where(messages.c.type.in_(types)).order_by(messages.c.at)
                )
            ).all()
        return [StoredMessage(row.key, row.origin, row.type, row.ref, row.raw) for row in rows]

    async def add_rollout(self, rollout: Rollout) -> None:
        """Raises ConflictError while another rollout runs: one at a time."""
        async with self._db.write() as db:
            running = await db.scalar(
                select(rollouts.c.id).where(rollouts.c.state == RolloutState.RUNNING.value)
            )
            if running is not None:
                raise ConflictError(
                    f"rollout {running} is still running",
                    remedy="watch it with: rollcall rollout watch",
                )
            await db.execute(
                insert(rollouts).values(
                    id=rollout.id,
                    created=rollout.created,
                    state=rollout.state.value,
                    generation=1,
                    body=rollout.model_dump(mode="json"),
                )
            )

    async def last_rollout(self) -> tuple[Rollout, int] | None:
        found = await self.recent_rollouts(1)
        return found[0] if found else None

    async def recent_rollouts(self, limit: int) -> list[tuple[Rollout, int]]:
        async with self._db.read() as db:
            rows = (
                await db.execute(select(rollouts).order_by(rollouts.c.created.desc()).limit(limit))
            ).all()
        return [(Rollout.model_validate(row.body), row.generation) for row in rows]

    async def save_rollout(
        self, before: Rollout, after: Rollout, generation: int, now: float
    ) -> bool:
        """Compare-and-set on the generation; every change of a node's state goes into the history."""
        async with self._db.write() as db:
            done = await db.execute(
                update(rollouts)
                .where(rollouts.c.id == after.id, rollouts.c.generation == generation)
                .values(
                    state=after.state.value,
                    generation=generation + 1,
                    body=after.model_dump(mode="json"),
                )
            )
            if done.rowcount != 1:
                return False
            states = {node.name: node.state for node in before.nodes}
            changed = [
                {
                    "at": now,
                    "rollout": after.id,
                    "node": node.name,
                    "state": node.state.value,
                    "reason": node.reason,
                }
                for node in after.nodes
                if states.get(node.name) is not node.state
            ]
            if changed:
                await db.execute(insert(history), changed)
            return True

    async def history_of(self, rollout: str) -> list[dict[str, object]]:
        async with self._db.read() as db:
            rows = (
                await db.execute(
                    select(history).where(history.c.rollout == rollout).order_by(history.c.id)
                )
            ).all()
        return [
            {"at": row.at, "node": row.node, "state": row.state, "reason": row.reason}
            for row in rows
        ]
