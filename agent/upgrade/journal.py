"""The node's memory of an upgrade: append-only lines, each with a checksum chained to the one before.

A torn last line is what a power cut leaves: it is dropped. Anything else that does not check out
makes the whole journal unreadable, and the caller falls back to the last known good release (fault 9).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path

from agent.upgrade.record import Entry, JournalError, Record, apply, check_follows, fold
from shared.canonical import MAX_JSON_BYTES
from shared.durable import full_sync, sync_directory, write_durable
from shared.errors import BadInputError
from shared.failpoint import fail_point

CHECK = 16
FULL = (errno.ENOSPC, errno.EDQUOT)
RESERVE_BYTES = 1 << 18
"""Kept free beside the journal: on a full disk an upgrade can still note that it failed (fault 36)."""
COMPACT_ABOVE = 1 << 20


class Journal:
    """Blocking; the runner calls it in a thread. One writer, guarded by the agent's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._chain = ""
        self.record: Record | None = None

    def load(self) -> Record | None:
        """Read what is there. Raises JournalError when it cannot be trusted."""
        entries, good = self._read()
        self.record = fold(entries)
        if self._path.exists() and self._path.stat().st_size > good:
            os.truncate(self._path, good)
        if good > COMPACT_ABOVE and self.record is not None:
            self._compact(entries, self.record.upgrade)
        self._reserve()
        return self.record

    def append(self, first: Entry, *more: Entry) -> Record:
        """Durable when it returns, all of them by one sync of the disk. Refuses an entry that does not follow from
        what is there."""
        entries, before = (first, *more), self._chain
        record = _after(self.record, first)
        for entry in more:
            record = _after(record, entry)
        try:
            lines = b"".join([self._line(entry) for entry in entries])
            for entry in entries:
                fail_point(f"journal.{entry.kind}.{entry.phase}")
            self._write_somehow(lines)
        except BaseException:
            self._chain = before
            raise
        for entry in entries:
            fail_point(f"journalled.{entry.kind}.{entry.phase}")
        self.record = record
        return record

    def _write_somehow(self, line: bytes) -> None:
        """With the reserved room, where there is no other."""
        try:
            self._write(line)
        except OSError as error:
            if error.errno not in FULL or not self._reserved.exists():
                raise
            self._reserved.unlink()
            self._write(line)

    @property
    def _reserved(self) -> Path:
        return self._path.with_suffix(".reserve")

    def _reserve(self) -> None:
        """Real bytes, so that no file system can make a hole of them (MACOS.md, 11)."""
        if not self._reserved.exists():
            with contextlib.suppress(OSError):
                write_durable(self._reserved, os.urandom(RESERVE_BYTES))

    def _write(self, line: bytes) -> None:
        """All lines or nothing of them: a disk that fills up must not leave half a line inside."""
        fresh = not self._path.exists()
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(fd).st_size
            try:
                if os.write(fd, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                full_sync(fd)
            except BaseException:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        if fresh:
            sync_directory(self._path.parent)

    def set_aside(self, suffix: str) -> Path:
        """Keep an unreadable journal for people, and start an empty one."""
        kept = self._path.with_suffix(f".{suffix}.unreadable")
        self._path.replace(kept)
        sync_directory(self._path.parent)
        self._chain, self.record = "", None
        return kept

    def _line(self, entry: Entry) -> bytes:
        body = entry.model_dump_json().encode()
        if len(body) > MAX_JSON_BYTES:
            raise JournalError(f"an entry of {len(body)} bytes is more than can be read back")
        self._chain = _check(self._chain, body)
        return self._chain.encode() + b" " + body + b"\n"

    def _read(self) -> tuple[list[Entry], int]:
        """The entries, and how many bytes of the file they take."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return [], 0
        entries: list[Entry] = []
        good = 0
        self._chain = ""
        lines = raw.split(b"\n")
        for number, line in enumerate(lines[:-1]):
            entry = self._parse(line)
            if entry is None:
                raise JournalError(f"{self._path}: line {number + 1} is damaged")
            entries.append(entry)
            good += len(line) + 1
        if b"\0" in lines[-1]:
            raise JournalError(f"{self._path} holds zeros where a line should be")
        return entries, good

    def _parse(self, line: bytes) -> Entry | None:
        check, _, body = line.partition(b" ")
        expected = _check(self._chain, body)
        if check != expected.encode():
            return None
        self._chain = expected
        try:
            return Entry.from_bytes(body)
        except BadInputError:
            return None

    def _compact(self, entries: list[Entry], upgrade: str) -> None:
        self._chain = ""
        kept = [self._line(entry) for entry in entries if entry.upgrade == upgrade]
        write_durable(self._path, b"".join(kept))


def _after(record: Record | None, entry: Entry) -> Record:
    """Raises JournalError for an entry that does not follow."""
    following = apply(record, entry)
    check_follows(record, entry)
    return following


def _check(chain: str, body: bytes) -> str:
    return hashlib.sha256(chain.encode() + body).hexdigest()[:CHECK]
