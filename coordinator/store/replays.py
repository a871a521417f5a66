"""First answers by Idempotency-Key: what each was about, and how it was answered."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    delete,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.database import Database
from coordinator.store.tables import metadata

KEPT_S = 86400.0
MAX_KEPT = 1000
"""Of one caller. Whoever changes more in a day loses the oldest answers."""

replays = Table(
    "replays",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("caller", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("request", String(64), nullable=False),
    Column("status", Integer),
    Column("type", String(64)),
    Column("etag", String(128)),
    Column("body", LargeBinary),
    Index("replays_by_caller", "caller", "at"),
    Index("replays_by_age", "at"),
)


@dataclass(frozen=True)
class KeptAnswer:
    """`body` is sealed where it holds a secret."""

    status: int
    type: str
    etag: str | None
    body: bytes


@dataclass(frozen=True)
class Answered:
    """A request that came before under the same key: what it was about, and how it was answered."""

    request: str
    answer: KeptAnswer


class ReplayQueries:
    """A row is written with what the request has made. There is none for one that was cut short: it has made
    nothing."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def find(self, key: str, now: float) -> Answered | None:
        """None for the first request under this key, and a day after it."""
        wanted = select(replays).where(
            replays.c.id == key, replays.c.at >= now - KEPT_S, replays.c.body.is_not(None)
        )
        async with self._db.read() as db:
            row = (await db.execute(wanted)).one_or_none()
        if row is None:
            return None
        return Answered(row.request, KeptAnswer(row.status, row.type, row.etag, row.body))

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction for `keep_answer`."""
        return self._db.write()


async def keep_answer(
    db: AsyncConnection, key: str, caller: str, request: str, answer: KeptAnswer, now: float
) -> None:
    newest = (
        select(replays.c.id)
        .where(replays.c.caller == caller)
        .order_by(replays.c.at.desc())
        .limit(MAX_KEPT - 1)
    )
    beyond = (replays.c.caller == caller) & replays.c.id.not_in(newest)
    old = (replays.c.at < now - KEPT_S) | (replays.c.id == key)
    await db.execute(delete(replays).where(old | beyond))
    await db.execute(
        insert(replays).values(id=key, caller=caller, at=now, request=request, **answer.__dict__)
    )
