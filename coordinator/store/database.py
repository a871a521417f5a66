"""One engine, one writer. SQLite takes its write lock at the start of a transaction, not in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from coordinator.store.settling import current_settlement
from shared.errors import RollcallError
from shared.failpoint import fail_point
from shared.lean import kept_out

with kept_out("pygments"):  # alembic's templates would colour errors: 4.6 MiB
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """`read` and `write` hand out a connection; one task at a time, since SQLite has one writer and
    one connection avoids the WAL-reset fault of older SQLite (LIBRARIES.md)."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> Database:
        """Migrates to the newest schema. Raises RollcallError when the file is not usable."""
        try:
            await asyncio.to_thread(_migrate, path)
        except DatabaseError as error:
            raise RollcallError(
                f"{path} cannot be used: {error.orig}",
                remedy="stop what else uses it, or restore it from a copy",
            ) from error
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=1, max_overflow=0)
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "begin", _begin_immediate)
        return cls(engine)

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        async with self._turn, self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block, with what settles the request that makes it."""
        settlement, settles, name = current_settlement(), False, ""
        async with self._turn:
            try:
                async with self._engine.begin() as connection:
                    yield connection
                    settles = settlement is not None and await settlement.join(connection)
                    name = "settled" if settles else "written"
                    fail_point(f"{name}.committing")
            finally:
                if settlement is not None:
                    settlement.said = False
            if settlement is not None and settles:
                settlement.done = True
        fail_point(f"{name}.committed")

    async def revision(self) -> str:
        """The schema's, as the database itself has it; empty when it has none."""
        async with self.read() as db:
            found = await db.scalar(text("SELECT version_num FROM alembic_version"))
        return str(found or "")


def newest_revision() -> str:
    """The schema's that this version was written for. Blocking."""
    return str(ScriptDirectory(str(MIGRATIONS)).get_current_head())


def _prepare(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "checkpoint_fullfsync = 1",
        "busy_timeout = 10000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(path: Path) -> None:
    """To the newest schema, on a connection of its own that is gone when this returns."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin_immediate)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
    path.chmod(0o600)
