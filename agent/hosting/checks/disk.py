"""The file system under the home: space that is really there, clones, and syncs that reach the media
(MACOS.md, 10 and 11). Each is tried with a file of our own, not read from a table."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import resource
import shutil
import struct
import tempfile
from pathlib import Path

from agent.hosting.finding import Finding, Subject, passed, unknown
from shared.readiness import CheckStatus

NEEDED = 3 << 30
"""One OpenClaw of 0.9 GB, twice where it is handed over, and a copy of the state."""
COMFORTABLE = 10 << 30
FICLONE = 0x40049409
F_PREALLOCATE = 42
F_ALLOCATEALL = 4
F_PEOFPOSMODE = 3
FILES = 1024


async def look(subject: Subject) -> list[Finding]:
    home = subject.home
    if not home.is_dir() or not os.access(home, os.W_OK):
        reason = f"{home} is missing or may not be written"
        return [unknown(name, reason) for name in ("disk.space", "disk.clone", "disk.sync")]
    return await asyncio.to_thread(_try_out, home, subject.host.is_mac)


def _try_out(home: Path, is_mac: bool) -> list[Finding]:
    folder = Path(tempfile.mkdtemp(prefix=".preflight-", dir=home))
    try:
        return [
            _space(folder, is_mac),
            judge_clone(try_clone(folder, is_mac)),
            _sync(folder, is_mac),
            judge_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _space(folder: Path, is_mac: bool) -> Finding:
    """What is called available may be purgeable: only an allocation proves it. It is not tried where it
    would leave nothing for others."""
    free = shutil.disk_usage(folder).free
    if free < 2 * NEEDED:
        return judge_space(free, "")
    try:
        allocate(folder / "space", NEEDED, is_mac)
    except OSError as error:
        reason = f"{NEEDED >> 30} GiB cannot be allocated: {error.strerror}"
        return judge_space(free, reason)
    return judge_space(free, "")


def judge_space(free: int, refused: str) -> Finding:
    observed = f"{free / (1 << 30):.1f} GiB free"
    remedy = f"free at least {COMFORTABLE >> 30} GiB on this volume"
    if refused or free < NEEDED:
        reason = refused or f"a release needs {NEEDED >> 30} GiB"
        return Finding("disk.space", CheckStatus.FAIL, observed, reason, remedy)
    if free < COMFORTABLE:
        reason = "enough for one release, not for keeping the last good one and a snapshot"
        return Finding("disk.space", CheckStatus.WARN, observed, reason, remedy)
    return passed("disk.space", observed)


def allocate(path: Path, size: int, is_mac: bool) -> None:
    """Really reserve that much for a file. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if is_mac:
            request = struct.pack("Iiqqq", F_ALLOCATEALL, F_PEOFPOSMODE, 0, size, 0)
            fcntl.fcntl(fd, F_PREALLOCATE, request)
        else:
            os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)
        path.unlink()


def try_clone(folder: Path, is_mac: bool) -> str:
    """Empty when a file could be cloned; else why not."""
    source, target = folder / "source", folder / "clone"
    source.write_bytes(b"rollcall" * 1024)
    try:
        if is_mac:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.clonefile(os.fsencode(source), os.fsencode(target), 0) != 0:
                return os.strerror(ctypes.get_errno())
        else:
            with source.open("rb") as old, target.open("wb") as new:
                fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
    except OSError as error:
        return error.strerror or str(error)
    except AttributeError:
        return "this libc has no clonefile"
    return "" if target.read_bytes() == source.read_bytes() else "the clone differs"


def judge_clone(why_not: str) -> Finding:
    if not why_not:
        return passed("disk.clone", "files can be cloned")
    return Finding(
        "disk.clone",
        CheckStatus.WARN,
        "no clones",
        f"every copy is made whole, and the outage lasts longer by it: {why_not}",
        "keep the agent's home, the gateway's home and the releases on one APFS volume",
    )


def _sync(folder: Path, is_mac: bool) -> Finding:
    full = getattr(fcntl, "F_FULLFSYNC", None)
    fd = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(fd, b"x")
        if not is_mac:
            os.fsync(fd)
            return passed("disk.sync", "fsync")
        with contextlib.suppress(OSError):
            if full is not None:
                fcntl.fcntl(fd, full)
                return passed("disk.sync", "F_FULLFSYNC")
    finally:
        os.close(fd)
    return Finding(
        "disk.sync",
        CheckStatus.WARN,
        "no F_FULLFSYNC",
        "after a power cut the journal may lack its last lines",
        "keep the home on a local volume",
    )


def judge_files(soft: int) -> Finding:
    if soft >= FILES or soft == resource.RLIM_INFINITY:
        return passed("limits.files", f"{soft} open files")
    return Finding(
        "limits.files",
        CheckStatus.WARN,
        f"{soft} open files",
        "launchd gives a job 256 unless its plist asks for more",
        "sudo rollcall-agent install writes a job that asks for more",
    )
