"""What is wanted of each node's traffic, what was wanted before, and snapshots of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from coordinator.store.database import Database
from coordinator.store.settling import answered_by
from coordinator.store.tables import meta, metadata
from coordinator.traffic.decide import Wanted
from shared.errors import ConflictError
from shared.traffic import FleetFreeze, Snapshot, TrafficEntry

FREEZE = "traffic_freeze"
"""The key in `meta` of the freeze that holds now."""

traffic = Table(
    "traffic",
    metadata,
    Column("node", String(32), primary_key=True),
    Column("id", String(48), nullable=False),
    Column("percent", Integer, nullable=False),
    Column("since", Float, nullable=False),
    Column("by", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("release", String(64)),
    Column("upgrade", String(48), nullable=False),
    Column("before", Integer, nullable=False),
    Column("steady", Float),
)

traffic_history = Table(
    "traffic_history",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("node", String(32), nullable=False),
    Column("percent", Integer),
    Column("by", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("rollout", String(32), nullable=False),
    Column("id", String(48), nullable=False),
    Index("traffic_history_by_rollout", "rollout"),
)

traffic_snapshots = Table(
    "traffic_snapshots",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created", Float, nullable=False),
    Column("rollout", String(32), nullable=False),
    Column("body", JSON, nullable=False),
)


class TrafficQueries:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def wanted(self) -> list[Wanted]:
        async with self._db.read() as db:
            rows = (await db.execute(select(traffic).order_by(traffic.c.node))).mappings().all()
        return [Wanted(**row) for row in rows]

    async def keep(self, changed: Sequence[Wanted], told: Sequence[TrafficEntry]) -> None:
        """The new state and what it says in the history, both or neither."""
        async with self._db.write() as db:
            for each in changed:
                values = asdict(each)
                statement = upsert(traffic).values(**values)
                values.pop("node")
                await db.execute(
                    statement.on_conflict_do_update(index_elements=["node"], set_=values)
                )
            if told:
                await db.execute(insert(traffic_history), [_row(entry) for entry in told])

    async def forget(self, nodes: Sequence[str]) -> None:
        """Of nodes that are in the fleet no more; their history stays."""
        async with self._db.write() as db:
            await db.execute(delete(traffic).where(traffic.c.node.in_(list(nodes))))

    async def history(self, limit: int, *, rollout: str | None = None) -> list[TrafficEntry]:
        """Newest first; an entry without a node is about all of them."""
        asked = select(traffic_history).order_by(traffic_history.c.number.desc()).limit(limit)
        if rollout is not None:
            asked = asked.where(traffic_history.c.rollout == rollout)
        async with self._db.read() as db:
            rows = (await db.execute(asked)).mappings().all()
        return [TrafficEntry.from_value(dict(row)) for row in rows]

    async def freeze(self) -> FleetFreeze | None:
        async with self._db.read() as db:
            raw = await db.scalar(select(meta.c.value).where(meta.c.key == FREEZE))
        return None if raw is None else FleetFreeze.from_bytes(raw.encode())

    async def set_freeze(self, freeze: FleetFreeze | None, told: TrafficEntry) -> None:
        async with self._db.write() as db:
            await db.execute(delete(meta).where(meta.c.key == FREEZE))
            if freeze is not None:
                await db.execute(insert(meta).values(key=FREEZE, value=freeze.model_dump_json()))
            await db.execute(insert(traffic_history), [_row(told)])

    async def add_snapshot(self, snapshot: Snapshot) -> None:
        """Raises ConflictError when there is one of this name: a snapshot is never overwritten."""
        if not await self.add_snapshot_once(snapshot):
            raise ConflictError(
                f"there is a snapshot {snapshot.name!r} already",
                remedy="choose another name; see: rollcall traffic snapshots",
            )

    async def add_snapshot_once(self, snapshot: Snapshot) -> bool:
        """False when there is one of this name."""
        async with self._db.write() as db:
            done = await db.execute(
                upsert(traffic_snapshots)
                .values(
                    name=snapshot.name,
                    created=snapshot.created,
                    rollout=snapshot.rollout,
                    body=snapshot.model_dump(mode="json"),
                )
                .on_conflict_do_nothing()
            )
            if done.rowcount == 1:
                answered_by(snapshot)
            return bool(done.rowcount == 1)

    async def has_snapshot(self, name: str) -> bool:
        found = select(traffic_snapshots.c.name).where(traffic_snapshots.c.name == name)
        async with self._db.read() as db:
            return await db.scalar(found) is not None

    async def prune_snapshots(self, kept: int) -> None:
        """The newest of those that were taken beside bookmarks stay; operators' own always."""
        newest = (
            select(traffic_snapshots.c.name)
            .where(traffic_snapshots.c.rollout != "")
            .order_by(traffic_snapshots.c.created.desc())
            .limit(kept)
        )
        async with self._db.write() as db:
            await db.execute(
                delete(traffic_snapshots).where(
                    traffic_snapshots.c.rollout != "",
                    traffic_snapshots.c.name.not_in(newest),
                )
            )

    async def snapshots(self, limit: int, *, rollout: str | None = None) -> list[Snapshot]:
        """Newest first."""
        asked = select(traffic_snapshots.c.body).limit(limit)
        asked = asked.order_by(traffic_snapshots.c.created.desc(), traffic_snapshots.c.name.desc())
        if rollout is not None:
            asked = asked.where(traffic_snapshots.c.rollout == rollout)
        async with self._db.read() as db:
            bodies = (await db.execute(asked)).scalars().all()
        return [Snapshot.model_validate(body) for body in bodies]

    async def snapshot(self, name: str) -> Snapshot | None:
        asked = select(traffic_snapshots.c.body).where(traffic_snapshots.c.name == name)
        async with self._db.read() as db:
            body = await db.scalar(asked)
        return None if body is None else Snapshot.model_validate(body)


def _row(entry: TrafficEntry) -> dict[str, Any]:
    return entry.model_dump()
