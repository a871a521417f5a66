"""Files that survive a power cut: written beside, synced, renamed, directory synced."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from pathlib import Path
from typing import IO

from shared.errors import ConflictError, RollcallError, UntrustedError
from shared.failpoint import fail_point

_F_FULLFSYNC = getattr(fcntl, "F_FULLFSYNC", None)


def full_sync(fd: int) -> None:
    """Reach the media, not just the drive: F_FULLFSYNC on macOS (MACOS.md, 10), fsync elsewhere."""
    if _F_FULLFSYNC is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, _F_FULLFSYNC)
            return
    os.fsync(fd)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        full_sync(fd)
    finally:
        os.close(fd)


def write_durable(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data` so that a reader sees the old bytes or the new ones, never a mixture."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            full_sync(file.fileno())
        fail_point(f"write.{path.name}")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    fail_point(f"written.{path.name}")


def sweep_temporary(folder: Path) -> None:
    """What a process that was killed while it wrote has left in a folder of ours (fault 10)."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def switch_link(link: Path, target: Path) -> None:
    """Point `link` at `target` by rename; `ln -sfn` is not atomic (MACOS.md, 10)."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    fail_point(f"link.{link.name}")
    temporary.replace(link)
    sync_directory(link.parent)
    fail_point(f"linked.{link.name}")


def remove_link(link: Path) -> None:
    link.unlink(missing_ok=True)
    sync_directory(link.parent)


def private_directory(path: Path) -> Path:
    """Make `path` (0700) if it is missing. Raises UntrustedError where a link or a file stands."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_symlink():
        raise UntrustedError(f"{path} is a symbolic link", remedy="replace it by a real directory")
    path.chmod(0o700)
    return path


def read_secret(path: Path, *, max_bytes: int = 1 << 16) -> bytes:
    """Read a private file. Refuses links, and files that others may read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise RollcallError(f"{path} does not exist") from None
    except OSError as error:
        raise UntrustedError(f"{path} cannot be opened: {error.strerror}") from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise UntrustedError(f"{path} is not a file")
    with os.fdopen(fd, "rb") as file:
        if mode & 0o077:
            raise UntrustedError(f"{path} may be read by others", remedy=f"chmod 600 {path}")
        return file.read(max_bytes)


def wait_for_lock(path: Path) -> IO[bytes]:
    """Take an exclusive lock for the life of the returned file, however long that takes. Blocking."""
    file = path.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def hold_lock(path: Path, *, what: str) -> IO[bytes]:
    """Take an exclusive lock for the life of the returned file. Raises ConflictError when it is held."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConflictError(
            f"{what} is in use by another process", remedy="stop the other one first"
        ) from None
    return file
