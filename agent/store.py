"""The agent's own database: sqlite3 on one thread, one connection (LIBRARIES.md).

It keeps every signed envelope this node made or accepted, who has acknowledged what, which releases
are blocked, what the probes measured, and a few counters. What it says survives a power cut (`synchronous=FULL`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from agent.clears import end_if_cleared
from agent.deliveries import Acked, Added, Delivery
from agent.schema import checkpoint, connect, raise_ids
from shared.errors import RollcallError
from shared.messages import Message
from shared.report import Broadcast
from shared.wire import Sha256, Wire

T = TypeVar("T")
Ended = tuple["asyncio.Future[Any]", object, Exception | None]
"""Who waits for it, its result, and why it failed."""


class Blocked(Wire):
    """A release that failed here and is not tried again by itself (P8)."""

    release: Sha256
    reason: str
    at: float


_CLOSED = """
CREATE TEMP TABLE closed AS SELECT key, origin, epoch, sequence, type FROM envelopes e
WHERE uploaded = 1 AND at < ?1 AND (type NOT IN ('red', 'clear')
  OR (type = 'red' AND EXISTS (SELECT 1 FROM envelopes c
    WHERE c.type = 'clear' AND c.ref = e.key AND c.keyid = e.keyid AND c.at < ?1))
  OR (type = 'red' AND EXISTS (SELECT 1 FROM dismissed d WHERE d.key = e.key AND d.at < ?1))
  OR (type = 'clear' AND NOT EXISTS (SELECT 1 FROM envelopes r
    WHERE r.key = e.ref AND r.type = 'red' AND (r.at >= ?1 OR r.uploaded = 0))))
"""
_RAISE_FLOORS = """
INSERT INTO floors SELECT origin, epoch, sequence FROM (
  SELECT origin, epoch, sequence, ROW_NUMBER() OVER (
    PARTITION BY origin ORDER BY epoch DESC, sequence DESC) AS place
  FROM closed WHERE type IN ('red', 'clear')) WHERE place = 1
ON CONFLICT (origin) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence
WHERE (excluded.epoch, excluded.sequence) > (floors.epoch, floors.sequence)
"""
_OPEN = """
FROM envelopes r WHERE r.type = 'red' AND r.key NOT IN (SELECT key FROM dismissed)
AND NOT EXISTS (SELECT 1 FROM envelopes c
  WHERE c.type = 'clear' AND c.ref = r.key AND c.keyid = r.keyid)
"""
"""A red ends by a clear under the very key that signed the red: who signs the roster can give a node's
name another key, and must not be able to end a red with it."""
CHECKPOINT_EVERY = 64
"""Commits. It takes two syncs of the disk and more, so it comes when nobody waits, after whoever did was answered."""
MAX_UPLOAD_BYTES = 512 << 10
MAX_EVENTS_BYTES = 3 << 20


class StoreError(RollcallError):
    """The agent's database cannot be read or written now."""

    code = "store"


class Store:
    """Open with `Store.open`. Every call runs on the store's own thread, in order."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._db = connection
        self._thread = thread
        self._writes: deque[tuple[Callable[[], object], asyncio.Future[Any]]] = deque()
        self._commits = 0
        self._committing = False
        """Work for the thread that will take along what is waiting."""

    @classmethod
    async def open(cls, path: Path) -> Store:
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agent-db")
        try:
            connection = await asyncio.get_running_loop().run_in_executor(thread, connect, path)
        except sqlite3.Error as error:
            thread.shutdown(wait=False)
            raise RollcallError(
                f"{path} cannot be used: {error}",
                remedy="move it away; reds and acks are fetched again from the peers",
            ) from error
        return cls(connection, thread)

    async def close(self) -> None:
        await self._do(self._db.close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        """Raises StoreError for whatever the database says: a full disk must not end the agent."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise _explain(error) from error

    async def _commit(self, work: Callable[[], T]) -> T:
        """Like `_do`, for work that writes. What waits together is committed together: thirty acks of one red
        cost one sync of the disk. Each has a savepoint of its own, so that one that fails undoes nothing else."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._writes.append((work, future))
        if not self._committing:
            self._committing = True
            self._thread.submit(self._commit_waiting, loop)
        try:
            result: T = await future
        except sqlite3.Error as error:
            raise _explain(error) from error
        return result

    def _commit_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the store's thread. What comes from here on waits for the next time."""
        self._committing = False
        batch = [self._writes.popleft() for _ in range(len(self._writes))]
        ended: list[Ended] = []
        try:
            with self._db as db:
                db.execute("BEGIN")
                for work, future in batch:
                    ended.append((future, *_attempt(db, work)))
        except sqlite3.Error as error:
            ended = [(future, None, error) for _, future in batch]
        loop.call_soon_threadsafe(_settle, ended)
        self._commits += 1
        if self._commits >= CHECKPOINT_EVERY and not self._writes:
            self._commits = 0
            checkpoint(self._db)

    async def write(self, sql: str, *values: object) -> int:
        """One statement, committed. Returns the number of rows it changed."""
        return await self._commit(lambda: self._db.execute(sql, values).rowcount)

    async def write_all(self, work: Sequence[tuple[str, Sequence[Sequence[object]]]]) -> None:
        """Statements, each for many rows, in one transaction: one sync of the disk for all of them."""

        def write() -> None:
            for sql, rows in work:
                self._db.executemany(sql, rows)

        await self._commit(write)

    async def rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        return await self._do(lambda: self._db.execute(sql, values).fetchall())

    async def next_epoch(self, now: float) -> int:
        """A new boot epoch, above every earlier one: the time in ms, or one more than the last where the
        clock went back. A database that was lost or put back does not repeat what peers have seen."""

        def work() -> int:
            row = self._db.execute(
                "INSERT INTO meta VALUES ('epoch', ?1) ON CONFLICT (key)"
                " DO UPDATE SET value = MAX(CAST(value AS INTEGER) + 1, ?1) RETURNING value",
                (int(now * 1000),),
            ).fetchone()
            raise_ids(self._db, int(row[0]))
            return int(row[0])

        return await self._commit(work)

    async def add(self, message: Message, at: float, peers: list[str]) -> Added:
        """Keep an envelope, and owe it to `peers`."""

        def work() -> Added:
            added, kind = self._keep(message, at), message.payload.body.type
            if added and kind == "red":
                end_if_cleared(self._db, message.key, message.raw, at)
            self._db.executemany(
                "INSERT OR IGNORE INTO deliveries (key, peer) VALUES (?, ?)",
                [(message.key, peer) for peer in peers],
            )
            opened = (
                kind == "red"
                and self._db.execute(f"SELECT 1 {_OPEN} AND r.key = ?", (message.key,)).fetchone()
            )
            return Added(added, bool(opened))

        return await self._commit(work)

    def _keep(self, message: Message, at: float) -> bool:
        """On the store's thread. False for one that was here already."""
        payload = message.payload
        values = (
            *(message.key, message.sha256, payload.origin, payload.epoch, payload.sequence),
            *(payload.body.type, message.ref, message.raw, at, payload.expires, message.keyid),
        )
        changed = self._db.execute(
            "INSERT OR IGNORE INTO envelopes"
            " (key, sha256, origin, epoch, sequence, type, ref, raw, at, expires, keyid)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        return changed.rowcount > 0

    async def undelivered(self, peer: str, now: float) -> list[Delivery]:
        """Oldest first: one origin's messages reach a peer in the order they were made. What has
        expired is not offered any more."""
        rows = await self.rows(
            "SELECT d.key, d.peer, e.raw, e.at FROM deliveries d JOIN envelopes e USING (key)"
            " WHERE d.peer = ? AND d.acked_ms IS NULL AND (e.expires IS NULL OR e.expires > ?)"
            " ORDER BY e.epoch, e.sequence LIMIT 1000",
            peer,
            now,
        )
        return [Delivery(row["key"], row["peer"], row["raw"], row["at"]) for row in rows]

    async def acked(self, acks: list[Acked]) -> None:
        """Keep them; what they are for is not owed any more."""

        def work() -> None:
            for each in acks:
                self._keep(each.ack, each.at)
            self._db.executemany(
                "UPDATE deliveries SET acked_ms = ? WHERE key = ? AND peer = ? AND acked_ms IS NULL",
                [(each.ms, each.key, each.peer) for each in acks],
            )

        await self._commit(work)

    async def to_upload(self, limit: int = 32) -> list[str]:
        rows = await self.rows("SELECT raw FROM envelopes WHERE uploaded = 0 LIMIT ?", limit)
        return _within([row["raw"] for row in rows], MAX_UPLOAD_BYTES)

    async def uploaded(self, hashes: list[str]) -> None:
        for value in hashes:
            await self.write("UPDATE envelopes SET uploaded = 1 WHERE sha256 = ?", value)

    async def open_reds(self) -> list[str]:
        """Reds that are neither cleared nor dismissed here, in the order they came."""
        rows = await self.rows(f"SELECT r.raw {_OPEN} ORDER BY r.at")
        return [row["raw"] for row in rows]

    async def dismiss(self, key: str, reason: str, at: float) -> None:
        """End a red on this node alone."""
        await self.write("INSERT OR IGNORE INTO dismissed VALUES (?, ?, ?)", key, reason, at)

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work of several statements, committed together."""
        return await self._commit(lambda: work(self._db))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._do(lambda: work(self._db))

    async def events(self, limit: int) -> list[str]:
        rows = await self.rows(
            "SELECT raw FROM envelopes WHERE type = 'clear' ORDER BY at DESC LIMIT ?", limit
        )
        found = [*await self.open_reds(), *(row["raw"] for row in rows)]
        return _within(found, MAX_EVENTS_BYTES)

    async def broadcasts(self, origin: str, limit: int) -> list[Broadcast]:
        """What `origin` sent to peers, newest first, with who acknowledged it and how fast."""
        rows = await self.rows(
            "SELECT e.key, e.raw, e.type, e.at, d.peer, d.acked_ms FROM envelopes e"
            " JOIN deliveries d USING (key) WHERE e.key IN ("
            "  SELECT key FROM envelopes WHERE origin = ? AND type IN ('red', 'clear', 'proven')"
            "  ORDER BY epoch DESC, sequence DESC LIMIT ?)"
            " ORDER BY e.epoch DESC, e.sequence DESC",
            origin,
            limit,
        )
        found: dict[str, Broadcast] = {}
        for row in rows:
            known = found.setdefault(
                row["key"], Broadcast(key=row["key"], type=row["type"], issued=row["at"])
            )
            if row["acked_ms"] is not None:
                acked = {**known.acked_ms, row["peer"]: round(row["acked_ms"], 1)}
                found[row["key"]] = known.model_copy(update={"acked_ms": acked})
        return list(found.values())

    async def attestations(self, order: str, *, with_claims: bool = False) -> list[str]:
        """What peers signed about an order of this node, and on request what it had claimed before."""
        rows = await self.rows(
            "SELECT raw FROM envelopes WHERE (type = 'attestation' OR (? AND type = 'proven'))"
            " AND ref = ? ORDER BY at",
            with_claims,
            order,
        )
        return [row["raw"] for row in rows]

    async def floors(self) -> dict[str, tuple[int, int]]:
        """By origin: what is not above (epoch, sequence) was closed long ago."""
        rows = await self.rows("SELECT origin, epoch, sequence FROM floors")
        return {row["origin"]: (row["epoch"], row["sequence"]) for row in rows}

    async def prune(self, before: float) -> int:
        """Forget what is closed and older than `before`; the floors keep it from coming back."""

        def work() -> int:
            db = self._db
            db.execute(_CLOSED, (before,))
            db.execute(_RAISE_FLOORS)
            db.execute("DELETE FROM deliveries WHERE key IN (SELECT key FROM closed)")
            gone = db.execute("DELETE FROM envelopes WHERE key IN (SELECT key FROM closed)")
            db.execute("DROP TABLE closed")
            db.execute(
                "DELETE FROM operator_clears WHERE uploaded = 1 AND at < ?"
                " AND ref NOT IN (SELECT key FROM envelopes)",
                (before,),
            )
            return gone.rowcount

        return await self._commit(work)

    async def block(self, release: str, reason: str, at: float) -> None:
        await self.write(
            "INSERT INTO blocklist VALUES (?, ?, ?) ON CONFLICT (release) DO NOTHING",
            release,
            reason,
            at,
        )

    async def blocklist(self) -> list[Blocked]:
        rows = await self.rows("SELECT release, reason, at FROM blocklist ORDER BY at")
        return [Blocked(release=r["release"], reason=r["reason"], at=r["at"]) for r in rows]

    async def unblock(self, release: str) -> None:
        await self.write("DELETE FROM blocklist WHERE release = ?", release)

    async def blocked(self, release: str) -> str | None:
        """Why this release failed here before; None when it did not."""
        rows = await self.rows("SELECT reason FROM blocklist WHERE release = ?", release)
        return rows[0]["reason"] if rows else None


def _attempt(db: sqlite3.Connection, work: Callable[[], object]) -> tuple[object, Exception | None]:
    db.execute("SAVEPOINT one")
    try:
        result = work()
    except Exception as error:
        db.execute("ROLLBACK TO one")
        return None, error
    finally:
        db.execute("RELEASE one")
    return result, None


def _settle(ended: list[Ended]) -> None:
    for future, result, failure in ended:
        if future.done():
            continue
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)


def _explain(error: sqlite3.Error) -> StoreError:
    return StoreError(f"agent.db: {error}", remedy="is the disk full?")


def _within(raws: list[str], limit: int) -> list[str]:
    """As many of them, from the first, as have `limit` bytes together."""
    size, kept = 0, []
    for raw in raws:
        size += len(raw)
        if size > limit:
            break
        kept.append(raw)
    return kept
