"""The index of capabilities, and the runs that change it. A step of a run and the index entry that it makes are one
transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Float, Index, Integer, String, Table, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from coordinator.store.database import Database
from coordinator.store.settling import answered_by
from coordinator.store.tables import metadata
from shared.capability import OPEN_RUNS, CapabilityRun, IndexEntry
from shared.errors import ConflictError

capability_index = Table(
    "capability_index",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("since", Float, nullable=False),
    Column("body", JSON, nullable=False),
)

capability_runs = Table(
    "capability_runs",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("name", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", Float, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("request", String(64), unique=True),
    Column("body", JSON, nullable=False),
    Index("capability_runs_by_name", "name", "created"),
)
_OPEN = tuple(sorted(OPEN_RUNS))


class CapabilityQueries:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, run: CapabilityRun, request: str | None) -> CapabilityRun:
        """The run, or the one that the same request began before. Raises ConflictError while another run of the
        same name is open."""
        async with self._db.write() as db:
            if request is not None:
                same = select(capability_runs).where(capability_runs.c.request == request)
                if (row := (await db.execute(same)).one_or_none()) is not None:
                    return CapabilityRun.model_validate(row.body)
            other = select(capability_runs.c.id).where(
                capability_runs.c.name == run.name, capability_runs.c.state.in_(_OPEN)
            )
            if (found := await db.scalar(other)) is not None:
                raise ConflictError(
                    f"run {found} of {run.name} has not ended",
                    remedy=f"follow it: rollcall capability watch {found}",
                )
            await db.execute(insert(capability_runs).values(**_row(run), request=request))
            answered_by(run)
        return run

    async def save(self, run: CapabilityRun, entry: IndexEntry | None) -> CapabilityRun:
        """Compare and set: raises ConflictError when somebody else has written the run since."""
        after = run.model_copy(update={"revision": run.revision + 1})
        mine = (capability_runs.c.id == run.id) & (capability_runs.c.revision == run.revision)
        async with self._db.write() as db:
            done = await db.execute(update(capability_runs).where(mine).values(**_row(after)))
            if done.rowcount != 1:
                raise ConflictError(f"run {run.id} was changed meanwhile")
            if entry is not None:
                values = {
                    "state": entry.state,
                    "since": entry.since,
                    "body": entry.model_dump(mode="json"),
                }
                added = upsert(capability_index).values(name=entry.name, **values)
                await db.execute(added.on_conflict_do_update(index_elements=["name"], set_=values))
        return after

    async def open_runs(self) -> list[CapabilityRun]:
        wanted = select(capability_runs).where(capability_runs.c.state.in_(_OPEN))
        return await self._runs(wanted.order_by(capability_runs.c.created))

    async def runs_of(self, name: str, limit: int) -> list[CapabilityRun]:
        """The newest first."""
        wanted = select(capability_runs).where(capability_runs.c.name == name)
        return await self._runs(wanted.order_by(capability_runs.c.created.desc()).limit(limit))

    async def run(self, run_id: str) -> CapabilityRun | None:
        found = await self._runs(select(capability_runs).where(capability_runs.c.id == run_id))
        return found[0] if found else None

    async def _runs(self, statement: Any) -> list[CapabilityRun]:
        async with self._db.read() as db:
            rows = (await db.execute(statement)).all()
        return [CapabilityRun.model_validate(row.body) for row in rows]

    async def index(self) -> dict[str, IndexEntry]:
        """By name."""
        async with self._db.read() as db:
            rows = (await db.execute(select(capability_index))).all()
        return {row.name: IndexEntry.model_validate(row.body) for row in rows}


def _row(run: CapabilityRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state.value,
        "created": run.created,
        "revision": run.revision,
        "body": run.model_dump(mode="json"),
    }
