"""Builds that take no new work: one row for each that operators drain."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Column, Float, String, Table, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from coordinator.store.database import Database
from coordinator.store.tables import metadata

cohort_drains = Table(
    "cohort_drains",
    metadata,
    Column("queue", String(64), primary_key=True),
    Column("build_id", String(64), primary_key=True),
    Column("at", Float, nullable=False),
    Column("who", String(64), nullable=False),
)


@dataclass(frozen=True)
class Drain:
    queue: str
    build_id: str
    at: float
    who: str


class CohortQueries:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def drains(self) -> list[Drain]:
        async with self._db.read() as db:
            rows = (await db.execute(select(cohort_drains))).all()
        return [Drain(row.queue, row.build_id, row.at, row.who) for row in rows]

    async def drain(self, drain: Drain) -> None:
        """Nothing where it is drained already: the first word stays."""
        async with self._db.write() as db:
            await db.execute(
                upsert(cohort_drains).values(**drain.__dict__).on_conflict_do_nothing()
            )

    async def resume(self, queue: str, build_id: str) -> None:
        async with self._db.write() as db:
            await db.execute(
                delete(cohort_drains).where(
                    cohort_drains.c.queue == queue, cohort_drains.c.build_id == build_id
                )
            )
