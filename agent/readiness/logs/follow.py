"""One log file, read on from where the last reading ended: over rotation, truncation, and whatever a gateway
puts there. Links are not followed, and a file of another account is not read: the folder may be shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UntrustedError
from shared.untrusted import Folder, open_plain

MAX_READ = 128 << 10
"""Bytes at one reading; the rest waits for the next."""
MAX_BACKLOG = 16 << 20
"""Bytes that may wait; what is older is skipped, and counted."""
MAX_LINE = 64 << 10


@dataclass(frozen=True)
class Place:
    """Up to where a file was read: its inode, and the byte after the last whole line."""

    inode: int
    offset: int


class Follower:
    """`locate` names the file of now, or None; its name may change with the date. Blocking; call `read` again
    and again, from one thread at a time, and `close` at the end."""

    def __init__(self, locate: Callable[[], Path | None], uids: frozenset[int]) -> None:
        self._locate, self._uids = locate, uids
        self._fd: int | None = None
        self._inode = self._offset = 0
        self._carry, self._skipping = b"", False
        self.path: Path | None = None
        self.refused = ""
        """Why the file is not read, when it is there."""
        self.skipped = 0
        """Bytes that were passed over: of lines that are too long, and of a backlog that is."""

    @property
    def place(self) -> Place | None:
        return None if self._fd is None else Place(self._inode, self._offset - len(self._carry))

    def begin(self, known: dict[str, Place] | None) -> None:
        """Where an earlier agent ended, by path. With None there was none: what stands there is old."""
        path = self._locate()
        if path is None or not self._open(path) or self._fd is None:
            return
        size = os.fstat(self._fd).st_size
        if known is None:
            self._offset = size
        elif (place := known.get(str(path))) is not None and place.inode == self._inode:
            self._offset = place.offset if place.offset <= size else 0

    def read(self) -> list[bytes]:
        """Whole lines, without their ends, in order; none at the end of the file."""
        lines: list[bytes] = []
        while not lines:
            data = self._more()
            if not data and not self._next():
                break
            lines = self._split(data)
        return lines

    def tail(self, max_bytes: int) -> list[bytes]:
        """The last whole lines of the file of now; `read` is where it was. Raises UntrustedError, OSError."""
        path = self._locate()
        if path is None:
            return []
        with Folder.guarded(path.parent) as folder:
            fd, info = open_plain(path.name, folder.fd, path)
        try:
            if info.st_uid not in self._uids:
                raise UntrustedError(f"{path} belongs to uid {info.st_uid}")
            start = max(0, info.st_size - max_bytes)
            lines = os.pread(fd, max_bytes, start).split(b"\n")
        finally:
            os.close(fd)
        return lines[1 if start else 0 : -1]

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _more(self) -> bytes:
        if self._fd is None:
            return b""
        size = os.fstat(self._fd).st_size
        if size < self._offset:
            self._rewind(0)
        elif size - self._offset > MAX_BACKLOG:
            self.skipped += size - MAX_BACKLOG - self._offset + len(self._carry)
            self._rewind(size - MAX_BACKLOG)
            self._skipping = True
        data = os.pread(self._fd, MAX_READ, self._offset)
        self._offset += len(data)
        return data

    def _rewind(self, offset: int) -> None:
        self._offset, self._carry, self._skipping = offset, b"", False

    def _next(self) -> bool:
        """At the end of one file: whether another one stands at its place by now."""
        path = self._locate()
        if path is None:
            return False
        try:
            same = self._fd is not None and path.lstat().st_ino == self._inode
        except OSError:
            return False
        return not same and self._open(path)

    def _open(self, path: Path) -> bool:
        try:
            with Folder.guarded(path.parent) as folder:
                fd, info = open_plain(path.name, folder.fd, path)
        except FileNotFoundError:
            return False
        except (UntrustedError, OSError) as error:
            self.refused = str(error)
            return False
        if info.st_uid not in self._uids:
            os.close(fd)
            self.refused = f"{path} belongs to uid {info.st_uid}, not to the gateway's account"
            return False
        self.close()
        self._fd, self._inode, self.path, self.refused = fd, info.st_ino, path, ""
        self._rewind(0)
        return True

    def _split(self, data: bytes) -> list[bytes]:
        *whole, rest = (self._carry + data).split(b"\n")
        if whole and self._skipping:
            self.skipped += len(whole.pop(0))
            self._skipping = False
        if len(rest) > MAX_LINE or (self._skipping and rest):
            self.skipped += len(rest)
            rest, self._skipping = b"", True
        self._carry = rest
        self.skipped += sum(len(line) for line in whole if len(line) > MAX_LINE)
        return [line for line in whole if len(line) <= MAX_LINE]
