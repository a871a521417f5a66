"""An npm tarball, read entry by entry before anything extracts it (fault 30).

npm drops the first part of every name, whatever it is called; on APFS two names that differ by case or
by Unicode form are one file. Readers of tar disagree on what a strange archive holds, so what could
be read in two ways is refused and not interpreted.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from shared.canonical import parse_json
from shared.errors import BadInputError

MAX_ENTRIES = 20_000
MAX_UNPACKED = 512 << 20
MAX_JSON_FILE = 1 << 20
MAX_NAME = 1024
MAX_DEPTH = 32
MAX_EXTENDED = 64 << 10
CHUNK = 64 << 10
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a fifo",
    b"s": "a socket",
}
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE)


@dataclass(frozen=True)
class Limits:
    """Of one archive. `unpacked` is in bytes and counts headers too."""

    entries: int = MAX_ENTRIES
    unpacked: int = MAX_UNPACKED


def check_archive(source: bytes | Path, limits: Limits | None = None) -> None:
    """Raises BadInputError that names the entry and the reason. Blocking, and flat in memory."""
    name = source.name if isinstance(source, Path) else "the archive"
    limits = limits or Limits()
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as raw,
            gzip.GzipFile(fileobj=raw) as unzipped,
        ):
            names = _Names(limits.entries)
            for entry in _entries(_Stream(unzipped, limits.unpacked)):
                names.add(entry)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error.message}") from error
    except (OSError, EOFError, zlib.error, tarfile.HeaderError) as error:
        raise BadInputError(f"{name} is not an npm tarball: {error}") from error
    if names.top is None:
        raise BadInputError(f"{name} is empty")


def read_json_file(source: bytes | Path, name: str = "package.json") -> dict[str, Any]:
    """A JSON object at the top of an npm tarball, read without unpacking anything to disk. Raises
    BadInputError."""
    shown = source.name if isinstance(source, Path) else "the archive"
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as raw,
            tarfile.open(fileobj=raw, mode="r:gz") as archive,
        ):
            member = next(each for each in archive if _inside(each) == name)
            file = archive.extractfile(member)
            text = file.read(MAX_JSON_FILE) if file is not None else b""
    except StopIteration:
        raise BadInputError(f"{shown} holds no {name}") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"{shown} is not an npm tarball: {error}") from error
    value = parse_json(text, max_bytes=MAX_JSON_FILE, max_depth=64)
    if not isinstance(value, dict):
        raise BadInputError(f"{shown}: {name} is not an object")
    return value


def file_digests(source: bytes) -> dict[str, str]:
    """SHA-256 of every regular file in an npm tarball, by the path that npm gives it. Raises BadInputError."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(source), mode="r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    found[_inside(member)] = digest_as_npm(file)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"the archive is not an npm tarball: {error}") from error
    return found


def digest_as_npm(file: IO[bytes]) -> str:
    """SHA-256 of a file as npm leaves it: of a script that names its interpreter, npm drops the carriage
    return at the end of the first line."""
    digest = hashlib.sha256()
    chunk = file.read(CHUNK)
    first, newline, rest = chunk.partition(b"\n")
    if newline and first.startswith(b"#!") and first.endswith(b"\r"):
        chunk = first[:-1] + newline + rest
    while chunk:
        digest.update(chunk)
        chunk = file.read(CHUNK)
    return digest.hexdigest()


def _inside(entry: tarfile.TarInfo) -> str:
    """npm drops the first part of every name, whatever it is called, and parts that are a dot."""
    return str(PurePosixPath(*PurePosixPath(entry.name).parts[1:])) if entry.isfile() else ""


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Stream:
    """The unzipped bytes in order, counted, so that a bomb is noticed before it has gone off."""

    def __init__(self, file: _Reader, limit: int) -> None:
        self._file, self._limit, self._seen = file, limit, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._seen += len(data)
        if self._seen > self._limit:
            raise BadInputError(f"unpacks to more than {self._limit} bytes")
        return data

    def exactly(self, size: int) -> bytes:
        data = self.read(size)
        if len(data) < size:
            raise EOFError("it ends in the middle of an entry")
        return data

    def skip(self, size: int) -> None:
        while size > 0:
            size -= len(self.exactly(min(size, CHUNK)))


def _entries(stream: _Stream) -> Iterator[tarfile.TarInfo]:
    """Files and folders with their whole names; anything else is refused here."""
    extended: dict[str, str] = {}
    while any(block := stream.exactly(tarfile.BLOCKSIZE)):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in (*_PAX, tarfile.GNUTYPE_LONGNAME):
            extended |= _extended(stream, info)
            continue
        if size := extended.pop("size", ""):
            _must(size == str(info.size), info.name, "has two sizes")
        info.name = extended.pop("path", info.name)
        _must(not extended, info.name, f"is described by {', '.join(sorted(extended))}")
        _must(info.type not in _KINDS, info.name, f"is {_KINDS.get(info.type)}")
        _must(info.isdir() or info.type in _FILES, info.name, f"has the unknown type {info.type!r}")
        _must(not info.mode & 0o7000, info.name, "has a setuid, setgid or sticky bit")
        _must(info.size >= 0, info.name, "has a negative size")
        yield info
        stream.skip(_padded(info.size))
    while rest := stream.read(CHUNK):
        if any(rest):
            raise BadInputError("goes on after its end")


def _extended(stream: _Stream, info: tarfile.TarInfo) -> dict[str, str]:
    """What an extended header (POSIX pax, GNU long name) says of the entry after it; the keys that
    change neither what is unpacked nor where are left out."""
    _must(0 <= info.size <= MAX_EXTENDED, info.name, "has an extended header without measure")
    raw = stream.exactly(_padded(info.size))[: info.size]
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": raw.removesuffix(b"\0").decode("utf-8", "surrogateescape")}
    records = {key: value for key, value in _records(raw) if _matters(key)}
    _must(info.type == tarfile.XHDTYPE or not records, info.name, "names all entries after it")
    return records


def _matters(key: str) -> bool:
    return key in ("path", "linkpath", "size") or key.startswith("GNU.sparse")


def _records(raw: bytes) -> Iterator[tuple[str, str]]:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts the whole record (POSIX.1-2001, pax)."""
    while raw:
        digits, space, _ = raw.partition(b" ")
        length = int(digits) if space and digits.isdigit() and len(digits) < 8 else 0
        record, raw = raw[:length], raw[length:]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if len(record) != length or not equals or not value.endswith(b"\n"):
            raise BadInputError("has an extended header that cannot be read")
        yield key.decode("utf-8", "replace"), value[:-1].decode("utf-8", "surrogateescape")


@dataclass
class _Names:
    """What has been seen: the top folder, and every name in the form in which APFS compares them."""

    limit: int
    top: str | None = None
    count: int = 0
    spelled: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)

    def add(self, info: tarfile.TarInfo) -> None:
        name = info.name.removesuffix("/") if info.isdir() else info.name
        self.count += 1
        _must(self.count <= self.limit, name, f"is one of more than {self.limit}")
        _check_name(name)
        parts = name.split("/")
        self.top = self.top or parts[0]
        inside = parts[0] == self.top and (len(parts) > 1 or info.isdir())
        _must(inside, name, f"is outside of the archive's one top folder {self.top!r}")
        for depth in range(1, len(parts) + 1):
            self._spell("/".join(parts[:depth]), name)
        if not info.isdir():
            _must(name not in self.files, name, "is there twice")
            self.files.add(name)

    def _spell(self, path: str, name: str) -> None:
        folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())
        known = self.spelled.setdefault(folded, path)
        _must(known == path, name, f"differs from {known!r} by case or Unicode form only")
        _must(path == name or path not in self.files, name, "lies below a file")


def _check_name(name: str) -> None:
    parts = name.split("/")
    _must(len(name) <= MAX_NAME and len(parts) <= MAX_DEPTH, name, "has a name without measure")
    _must(not name.startswith("/"), name, "has an absolute name")
    _must(".." not in parts, name, "climbs out with '..'")
    _must("" not in parts and "." not in parts, name, "has an empty or '.' part in its name")
    _must("\\" not in name, name, "has a backslash in its name")
    odd = any(unicodedata.category(each) in ("Cc", "Cs") for each in name)
    _must(not odd, name, "has a control character in its name, or one that is not UTF-8")


def _must(holds: bool, name: str, reason: str) -> None:
    if not holds:
        raise BadInputError(f"entry {name[:200]!r} {reason}")


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
