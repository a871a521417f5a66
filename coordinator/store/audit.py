"""The audit log in the database: rows are appended, and read in pages."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.audit import GENESIS, Entry, next_row
from coordinator.store.database import Database
from coordinator.store.tables import audit


class AuditLog:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def append(self, entry: Entry, at: float) -> None:
        async with self._db.write() as db:
            await append_row(db, entry, at)

    async def page(self, after: int, limit: int) -> list[dict[str, Any]]:
        """As they are stored, sound or not: judging them is the reader's part."""
        wanted = select(audit).where(audit.c.id > after).order_by(audit.c.id).limit(limit)
        async with self._db.read() as db:
            return [row._asdict() for row in (await db.execute(wanted)).all()]

    async def last(self) -> int:
        """The id of the last row; 0 while there is none."""
        async with self._db.read() as db:
            return int(await db.scalar(select(func.max(audit.c.id))) or 0)


async def append_row(db: AsyncConnection, entry: Entry, at: float) -> None:
    """In one transaction with the look at the last row, so that two rows never share a place."""
    last = select(audit.c.id, audit.c.sha256).order_by(audit.c.id.desc()).limit(1)
    found = (await db.execute(last)).one_or_none()
    number, prev = (0, GENESIS) if found is None else (found.id, found.sha256)
    row = next_row(number + 1, prev, entry, at)
    await db.execute(insert(audit).values(**row.model_dump()))
