"""Operators' clears in the agent's database: statements for the store's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from shared.operatorclear import OperatorClear, identity
from shared.report import MAX_CLEARS

MAX_HANDED = MAX_CLEARS
"""Clears in one answer; more come with the next."""


def keep_clear(
    db: sqlite3.Connection, clear: OperatorClear, raw: str, at: float, *, uploaded: bool
) -> bool:
    """Keep it, and end the red that it is about if that one is here. True when it ended one now."""
    db.execute(
        "INSERT OR IGNORE INTO operator_clears (ref, sha256, reason, raw, at, uploaded)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (clear.ref, clear.sha256, clear.reason, raw, at, uploaded),
    )
    found = db.execute(
        "SELECT raw FROM envelopes WHERE type = 'red' AND key = ?", (clear.ref,)
    ).fetchone()
    return found is not None and end_if_cleared(db, clear.ref, found["raw"], at)


def end_if_cleared(db: sqlite3.Connection, key: str, raw: str, at: float) -> bool:
    """End this red if operators have cleared it: by key and by what its origin signed."""
    if not db.execute("SELECT 1 FROM operator_clears WHERE ref = ?", (key,)).fetchone():
        return False
    ended = db.execute(
        "INSERT OR IGNORE INTO dismissed (key, reason, at)"
        " SELECT ref, reason, ? FROM operator_clears WHERE ref = ? AND sha256 = ?",
        (at, key, identity(raw)[1]),
    )
    return ended.rowcount > 0


def clears_of(db: sqlite3.Connection, keys: Iterable[str]) -> list[str]:
    """The clears of these reds, as they were signed."""
    found: list[str] = []
    for key in keys:
        rows = db.execute("SELECT raw FROM operator_clears WHERE ref = ? ORDER BY id", (key,))
        found += [row["raw"] for row in rows]
    return found[:MAX_HANDED]


def clears_to_upload(db: sqlite3.Connection) -> list[str]:
    rows = db.execute(
        "SELECT raw FROM operator_clears WHERE uploaded = 0 ORDER BY id LIMIT ?", (MAX_HANDED,)
    )
    return [row["raw"] for row in rows]


def clears_uploaded(db: sqlite3.Connection, raws: Iterable[str]) -> None:
    for raw in raws:
        db.execute("UPDATE operator_clears SET uploaded = 1 WHERE raw = ?", (raw,))
