"""Sessions of the admin page and one-use links to it: the hashes of their secrets, and whose token they rest on."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Column, Float, Index, String, Table, delete, insert, select

from coordinator.store.database import Database
from coordinator.store.tables import metadata

sessions = Table(
    "page_sessions",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("token", String(8), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Index("page_sessions_by_token", "token"),
)
links = Table(
    "page_links",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("token", String(8), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
)

MAX_SESSIONS = 100
"""Of one token; beyond them the oldest ends."""
MAX_LINKS = 20


@dataclass(frozen=True)
class Session:
    """`token` is the id of the operator's token that it was opened with. Times are seconds since the epoch."""

    token: str
    created: float
    expires: float


class SessionStore:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def open(self, secret_sha256: str, session: Session) -> None:
        await self._add(sessions, secret_sha256, session, MAX_SESSIONS)

    async def add_link(self, secret_sha256: str, link: Session) -> None:
        await self._add(links, secret_sha256, link, MAX_LINKS)

    async def _add(self, table: Table, secret_sha256: str, one: Session, most: int) -> None:
        """Those that are over go, and of one token's the oldest beyond `most`."""
        of_token = table.c.token == one.token
        newest = (
            select(table.c.secret_sha256)
            .where(of_token)
            .order_by(table.c.created.desc())
            .limit(most - 1)
        )
        async with self._db.write() as db:
            await db.execute(delete(table).where(table.c.expires <= one.created))
            await db.execute(delete(table).where(of_token, table.c.secret_sha256.not_in(newest)))
            await db.execute(
                insert(table).values(
                    secret_sha256=secret_sha256,
                    token=one.token,
                    created=one.created,
                    expires=one.expires,
                )
            )

    async def find(self, secret_sha256: str, now: float) -> Session | None:
        wanted = select(sessions).where(
            sessions.c.secret_sha256 == secret_sha256, sessions.c.expires > now
        )
        async with self._db.read() as db:
            row = (await db.execute(wanted)).one_or_none()
        return None if row is None else Session(row.token, row.created, row.expires)

    async def use_link(self, secret_sha256: str, now: float) -> Session | None:
        """The link, which is used up by this; None for one that is over, used or unknown."""
        mine = links.c.secret_sha256 == secret_sha256
        async with self._db.write() as db:
            row = (await db.execute(select(links).where(mine))).one_or_none()
            await db.execute(delete(links).where(mine))
        if row is None or row.expires <= now:
            return None
        return Session(row.token, row.created, row.expires)

    async def close(self, secret_sha256: str) -> None:
        async with self._db.write() as db:
            await db.execute(delete(sessions).where(sessions.c.secret_sha256 == secret_sha256))

    async def close_all(self, token: str) -> int:
        """Every session of a token, and its links that were not used. Returns how many sessions there were."""
        async with self._db.write() as db:
            await db.execute(delete(links).where(links.c.token == token))
            done = await db.execute(delete(sessions).where(sessions.c.token == token))
        return int(done.rowcount)
