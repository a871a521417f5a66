"""Every file of a folder, read once and hashed: docs/decisions/0006 has the format, 0014 the price.

Nearly all of a tree's files are small, and there the time goes into calls: each is opened, looked at and
read once, by one thread. Most of the bytes are in few large files: a second thread reads and hashes
those meanwhile, without the interpreter's lock.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from operator import attrgetter
from pathlib import PurePath

from shared.untrusted import open_folder, open_plain

LARGE = 128 << 10
"""Bytes from which handing a file over costs less than hashing it here."""
CHUNK = 1 << 20
AHEAD = 8
"""Large files that are open and wait: launchd allows a process 256 descriptors."""

_Line = tuple[str, bytes, bytes | Future[bytes]]


class Sweep:
    """A context manager for one use: `folder` collects, `digest` ends it."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._files = self._bytes = 0
        self._waiting: deque[Future[bytes]] = deque()
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="sweep")

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *_: object) -> None:
        self._helper.shutdown()

    def folder(self, fd: int, above: str, *, but: str | None = None) -> None:
        """All that is in an open folder, in the order of names; `above` is ``""`` or ends in a slash. An
        entry called `but` is left out unless it is a folder. Entries are in no folder's line but their own,
        so this order is the order of paths, part by part."""
        with os.scandir(fd) as found:
            entries = sorted(found, key=attrgetter("name"))
        for entry in entries:
            name = entry.name
            if name == but and not entry.is_dir(follow_symlinks=False):
                continue
            if entry.is_file(follow_symlinks=False):
                self._file(name, fd, f"{above}{name}")
            elif entry.is_dir(follow_symlinks=False):
                self._below(name, fd, f"{above}{name}")
            elif entry.is_symlink():
                target = os.fsencode(os.readlink(name, dir_fd=fd))
                self._lines.append((f"{above}{name}", b"l\0", target))
            else:
                self._lines.append((f"{above}{name}", b"s\0", b""))

    def digest(self) -> tuple[str, int, int]:
        """SHA-256 in hex, files, bytes. Raises what the reading of a large file raised."""
        parts: list[bytes] = []
        for path, kind, rest in self._lines:
            raw = os.fsencode(path)
            tail = rest if isinstance(rest, bytes) else rest.result()
            parts += (len(raw).to_bytes(4, "big"), raw, kind, tail)
        return hashlib.sha256(b"".join(parts)).hexdigest(), self._files, self._bytes

    def _below(self, name: str, fd: int, path: str) -> None:
        deeper = open_folder(name, fd, path)
        try:
            self.folder(deeper, f"{path}/")
        finally:
            os.close(deeper)

    def _file(self, name: str, dir_fd: int, path: str) -> None:
        fd, info = open_plain(name, dir_fd, path)
        kind = b"f\0x" if info.st_mode & 0o100 else b"f\0-"
        self._files += 1
        self._bytes += info.st_size
        content = read_and_hash(fd, info.st_size) if info.st_size < LARGE else self._later(fd)
        self._lines.append((path, kind, content))

    def _later(self, fd: int) -> Future[bytes]:
        while len(self._waiting) >= AHEAD:
            self._waiting.popleft().result()
        later = self._helper.submit(read_and_hash, fd, CHUNK)
        self._waiting.append(later)
        return later


def line_of(name: str, dir_fd: int, path: str) -> bytes:
    """What a sweep notes of one entry that is no folder; reads all of it."""
    info = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        return b"l\0" + os.fsencode(os.readlink(name, dir_fd=dir_fd))
    if not stat.S_ISREG(info.st_mode):
        return b"s\0"
    fd, info = open_plain(name, dir_fd, path)
    kind = b"f\0x" if info.st_mode & 0o100 else b"f\0-"
    return kind + read_and_hash(fd, min(info.st_size, CHUNK))


def digest_of(lines: dict[str, bytes]) -> str:
    """The digest of a sweep over entries with these paths and lines."""
    digest = hashlib.sha256()
    for path in sorted(lines, key=lambda path: PurePath(path).parts):
        raw = os.fsencode(path)
        digest.update(len(raw).to_bytes(4, "big") + raw + lines[path])
    return digest.hexdigest()


def read_and_hash(fd: int, expected: int) -> bytes:
    """To the end, however much that is; closes `fd`. One read is enough for a file of `expected` bytes."""
    try:
        data = os.read(fd, expected + 1)
        digest = hashlib.sha256(data)
        if len(data) != expected:
            while data := os.read(fd, CHUNK):
                digest.update(data)
        return digest.digest()
    finally:
        os.close(fd)
