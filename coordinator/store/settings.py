"""What operators have set, one row a key, and every change that there was."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Column, Float, Index, Integer, String, Table, Text, delete, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from coordinator.store.database import Database
from coordinator.store.tables import metadata

settings = Table(
    "settings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("who", String(64), nullable=False),
)

setting_history = Table(
    "setting_history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("who", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("before", Text),
    Column("after", Text),
    Index("setting_history_by_key", "key"),
)


@dataclass(frozen=True)
class StoredSetting:
    """`value` is JSON."""

    key: str
    value: str
    at: float
    who: str


@dataclass(frozen=True)
class StoredChange:
    """`before` and `after` are JSON; None is the default."""

    at: float
    who: str
    key: str
    before: str | None
    after: str | None


class SettingQueries:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def all(self) -> list[StoredSetting]:
        async with self._db.read() as db:
            rows = (await db.execute(select(settings))).all()
        return [StoredSetting(row.key, row.value, row.at, row.who) for row in rows]

    async def change(self, change: StoredChange) -> None:
        """The value and its line in the history, both or neither."""
        async with self._db.write() as db:
            if change.after is None:
                await db.execute(delete(settings).where(settings.c.key == change.key))
            else:
                values = {"value": change.after, "at": change.at, "who": change.who}
                statement = upsert(settings).values(key=change.key, **values)
                await db.execute(
                    statement.on_conflict_do_update(index_elements=["key"], set_=values)
                )
            await db.execute(insert(setting_history).values(**change.__dict__))

    async def history(self, key: str | None, limit: int) -> list[StoredChange]:
        """The latest changes of one key or of all, newest first."""
        wanted = select(setting_history).order_by(setting_history.c.id.desc()).limit(limit)
        if key is not None:
            wanted = wanted.where(setting_history.c.key == key)
        async with self._db.read() as db:
            rows = (await db.execute(wanted)).all()
        return [StoredChange(row.at, row.who, row.key, row.before, row.after) for row in rows]
