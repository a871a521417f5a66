"""Whether this coordinator can do its work now: everything that it needs is tried, not assumed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from coordinator.cohorts import blocked_work
from coordinator.repository import Repository
from coordinator.store.database import Database, newest_revision
from shared.clock import Clock
from shared.cohorts import CohortView
from shared.errors import RollcallError
from shared.fleetsettings import FleetSettings
from shared.operating import Ready, ReadyCheck

DATABASE_S: Final = 5.0
KEPT_S: Final = 1.0
STALLED_S: Final = 15.0
"""The engine looks once a second."""


class Readiness:
    """`looked` is when the engine's loop last came round (monotonic). Anyone may ask: it is read once a second, and
    once for all who ask meanwhile."""

    def __init__(
        self,
        database: Database,
        repository: Repository,
        clock: Clock,
        looked: Callable[[], float],
        cohorts: Callable[[], list[CohortView]],
        settings: Callable[[], Awaitable[FleetSettings]],
    ) -> None:
        self._database, self._repository, self._clock = database, repository, clock
        self._looked, self._cohorts, self._settings = looked, cohorts, settings
        self.wanted_revision = ""
        self._turn = asyncio.Lock()
        self._last: tuple[float, Ready] | None = None

    async def open(self) -> None:
        self.wanted_revision = await asyncio.to_thread(newest_revision)

    async def read(self) -> Ready:
        async with self._turn:
            now = self._clock.monotonic()
            if self._last is None or now - self._last[0] >= KEPT_S:
                self._last = now, await self._read()
            return self._last[1]

    async def _read(self) -> Ready:
        database, found = await self._read_database()
        checks = [database, self._judge_engine(), await self._judge_repository()]
        if database.ok:
            checks += [self._judge_schema(found), await self._judge_workers()]
        return Ready(ready=all(check.ok for check in checks), checks=checks)

    async def _read_database(self) -> tuple[ReadyCheck, str]:
        """With its write lock: a database that can only be read is of no use here."""
        try:
            async with asyncio.timeout(DATABASE_S):
                found = await self._database.revision()
        except TimeoutError:
            slow = f"it did not answer within {DATABASE_S:.0f} s"
            return ReadyCheck(name="database", ok=False, reason=slow), ""
        except SQLAlchemyError as error:
            reason = f"it cannot be used: {type(error).__name__}"
            return ReadyCheck(name="database", ok=False, reason=reason), ""
        return ReadyCheck(name="database", ok=True), found

    def _judge_schema(self, found: str) -> ReadyCheck:
        fits = found == self.wanted_revision
        reason = f"the database has schema {found}, this version needs {self.wanted_revision}"
        return ReadyCheck(name="migrations", ok=fits, reason="" if fits else reason)

    def _judge_engine(self) -> ReadyCheck:
        late = self._clock.monotonic() - self._looked()
        alive = late <= STALLED_S
        reason = "" if alive else f"no rollout was looked at for {late:.0f} s"
        return ReadyCheck(name="engine", ok=alive, reason=reason)

    async def _judge_repository(self) -> ReadyCheck:
        """A fleet that nobody has signed yet must be reachable, to be signed."""
        try:
            expired = await asyncio.to_thread(self._repository.expired)
        except (RollcallError, OSError):
            return ReadyCheck(name="repository", ok=False, reason="its metadata cannot be read")
        signed = self._repository.root is not None
        note = "" if signed else "no operator has signed this fleet yet"
        return ReadyCheck(name="repository", ok=not expired, reason=expired or note)

    async def _judge_workers(self) -> ReadyCheck:
        """Seed 004: a warning, or with `validation` set to `fail` no readiness."""
        blocked = "; ".join(blocked_work(self._cohorts()))
        strict = (await self._settings()).validation == "fail"
        return ReadyCheck(name="workers", ok=not (blocked and strict), reason=blocked[:2000])
