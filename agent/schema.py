"""The form of agent.db, and how it is opened: versions only go up, in one transaction."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from shared.wire import MAX_INTEGER

SCHEMA_VERSION = 4
LONGEST_LOG = 4000
"""Pages of the write-ahead log until a commit moves them itself, because `checkpoint` did not."""
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE envelopes (
  key TEXT PRIMARY KEY, sha256 TEXT NOT NULL, origin TEXT NOT NULL, epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL, type TEXT NOT NULL, ref TEXT NOT NULL, raw TEXT NOT NULL,
  at REAL NOT NULL, expires REAL, uploaded INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX envelopes_by_type ON envelopes (type, ref);
CREATE INDEX envelopes_to_upload ON envelopes (uploaded) WHERE uploaded = 0;
CREATE TABLE deliveries (
  key TEXT NOT NULL, peer TEXT NOT NULL, acked_ms REAL, PRIMARY KEY (key, peer)
) STRICT;
CREATE TABLE floors (origin TEXT PRIMARY KEY, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL) STRICT;
CREATE TABLE blocklist (release TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL) STRICT;
"""
_TO_2 = """
CREATE TABLE dismissed (key TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL) STRICT;
ALTER TABLE envelopes ADD COLUMN keyid TEXT NOT NULL DEFAULT '';
"""
_TO_3 = """
CREATE TABLE history_samples (
  series TEXT NOT NULL, at REAL NOT NULL, packed BLOB NOT NULL, PRIMARY KEY (at, series)
) STRICT, WITHOUT ROWID;
CREATE TABLE history_buckets (
  series TEXT NOT NULL, at REAL NOT NULL, low REAL NOT NULL, mean REAL NOT NULL, high REAL NOT NULL,
  count INTEGER NOT NULL, PRIMARY KEY (at, series)
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('readable_from', 2) ON CONFLICT (key) DO UPDATE SET value = excluded.value;
"""
"""An agent of before needs nothing of it."""
_TO_4 = """
CREATE TABLE operator_clears (
  id INTEGER PRIMARY KEY AUTOINCREMENT, ref TEXT NOT NULL, sha256 TEXT NOT NULL, reason TEXT NOT NULL,
  raw TEXT NOT NULL, at REAL NOT NULL, uploaded INTEGER NOT NULL, UNIQUE (ref, sha256)
) STRICT;
CREATE TABLE inbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, key TEXT NOT NULL, cause TEXT NOT NULL,
  at REAL NOT NULL, UNIQUE (event, key)
) STRICT;
INSERT INTO inbox (event, key, cause, at) SELECT 'red', r.key, r.key, r.at FROM envelopes r
  WHERE r.type = 'red' AND r.key NOT IN (SELECT key FROM dismissed) AND NOT EXISTS (
    SELECT 1 FROM envelopes c WHERE c.type = 'clear' AND c.ref = r.key AND c.keyid = r.keyid)
  ORDER BY r.at;
CREATE TRIGGER inbox_red AFTER INSERT ON envelopes WHEN NEW.type = 'red' BEGIN
  INSERT OR IGNORE INTO inbox (event, key, cause, at) VALUES ('red', NEW.key, NEW.key, NEW.at);
  INSERT OR IGNORE INTO inbox (event, key, cause, at) SELECT 'clear', NEW.key, c.key, NEW.at
    FROM envelopes c WHERE c.type = 'clear' AND c.ref = NEW.key AND c.keyid = NEW.keyid;
END;
CREATE TRIGGER inbox_clear AFTER INSERT ON envelopes WHEN NEW.type = 'clear' BEGIN
  INSERT OR IGNORE INTO inbox (event, key, cause, at) SELECT 'clear', r.key, NEW.key, NEW.at
    FROM envelopes r JOIN inbox i ON i.key = r.key AND i.event = 'red'
    WHERE r.type = 'red' AND r.key = NEW.ref AND r.keyid = NEW.keyid;
END;
CREATE TRIGGER inbox_dismissed AFTER INSERT ON dismissed BEGIN
  INSERT OR IGNORE INTO inbox (event, key, cause, at) SELECT 'clear', NEW.key, CASE WHEN EXISTS (
      SELECT 1 FROM operator_clears o WHERE o.ref = NEW.key) THEN 'operator' ELSE 'here' END, NEW.at
    FROM inbox i WHERE i.event = 'red' AND i.key = NEW.key;
END;
CREATE TRIGGER inbox_forget AFTER DELETE ON envelopes WHEN OLD.type = 'red' BEGIN
  DELETE FROM inbox WHERE key = OLD.key;
  DELETE FROM dismissed WHERE key = OLD.key;
END;
INSERT OR REPLACE INTO meta VALUES ('readable_from', 2);
"""
"""What consumers are told, each red once and each end once, whoever writes the envelope: an older agent that
has this database again keeps the inbox right as well."""
_STEPS = {
    0: _SCHEMA + _TO_2 + _TO_3 + _TO_4,
    1: _TO_2 + _TO_3 + _TO_4,
    2: _TO_3 + _TO_4,
    3: _TO_4,
}
"""What brings a database of each version to the newest."""


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, timeout=10)
    db.row_factory = sqlite3.Row
    path.chmod(0o600)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA fullfsync = 1")
    db.execute("PRAGMA checkpoint_fullfsync = 1")
    db.execute(f"PRAGMA wal_autocheckpoint = {LONGEST_LOG}")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION and _readable_from(db) > SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"it was written by a newer agent (schema {version})")
    if version in _STEPS:
        db.executescript(
            f"BEGIN; {_STEPS[version]} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    return db


def checkpoint(db: sqlite3.Connection) -> None:
    """Move what the write-ahead log holds into the database. What fails, on a full disk, is tried the next time."""
    with contextlib.suppress(sqlite3.Error):
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _readable_from(db: sqlite3.Connection) -> int:
    """The oldest schema whose agent can use a database of a newer one: a step that only adds what an older
    agent may leave out says so in `meta`. A new agent that fails leaves its database to the old one."""
    row = db.execute("SELECT value FROM meta WHERE key = 'readable_from'").fetchone()
    return MAX_INTEGER if row is None else int(row[0])


def raise_ids(db: sqlite3.Connection, number: int) -> None:
    """The inbox numbers above `number` from now on: also after the database was lost or put back from a backup,
    a consumer that resumes after an id misses nothing."""
    raised = db.execute(
        "UPDATE sqlite_sequence SET seq = MAX(seq, ?) WHERE name = 'inbox'", (number,)
    ).rowcount
    if not raised:
        db.execute("INSERT INTO sqlite_sequence VALUES ('inbox', ?)", (number,))
