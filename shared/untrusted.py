"""Files and folders that somebody else may have planted: opened part by part, links not followed.

Where a gateway has written, a name proves nothing: it may be a link to another file, a fifo that hangs
its reader, or change between a look and the next. So every part is opened from the one before it
(`openat`), and what was opened is looked at, not what the name stood for a moment ago (fault 31).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from io import BufferedReader
from pathlib import Path

from shared.durable import full_sync
from shared.errors import TooLargeError, UntrustedError

_PASS = os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)
_LIST = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_RDONLY
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_NOT_A_FOLDER = (errno.ELOOP, errno.ENOTDIR)
MAX_LINKS = 32
PRIVATE = 0o700


class Folder:
    """An open directory. `path` is for messages only; every look goes through the descriptor.

    Blocking. Methods raise UntrustedError where a link or anything but what is wanted stands, and
    FileNotFoundError where nothing does.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self.fd, self.path = fd, path

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    @classmethod
    def own(cls, path: Path) -> Folder:
        """One that only this agent and its operator can have put there: links in `path` are theirs."""
        return cls(os.open(path, os.O_DIRECTORY | os.O_RDONLY), path)

    @classmethod
    def guarded(cls, path: Path) -> Folder:
        """`path` must be a real folder. On the way to it a link is followed only out of a folder that
        nobody but root can write, such as `/tmp` of macOS."""
        return cls(_walk(path), path)

    def folder(self, relative: str) -> Folder:
        """One below, however deep; no part of `relative` may be a link."""
        return self._below(Path(relative).parts, self.path / relative)

    def _below(self, parts: tuple[str, ...], shown: Path) -> Folder:
        fd = os.dup(self.fd)
        for part in parts:
            try:
                deeper = _open_real(part, fd, _LIST, shown)
            finally:
                os.close(fd)
            fd = deeper
        return Folder(fd, shown)

    def read(self, relative: str, *, max_bytes: int) -> bytes:
        """A regular file below. Raises TooLargeError above `max_bytes`."""
        *above, name = Path(relative).parts
        shown = self.path / relative
        with self._below(tuple(above), shown.parent) as holder:
            fd, info = open_plain(name, holder.fd, shown)
            with os.fdopen(fd, "rb") as file:
                holder._check_names(info, name)
                data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise TooLargeError(f"{shown} is larger than {max_bytes} bytes")
        return data

    def _check_names(self, info: os.stat_result, name: str) -> None:
        """A second name of a file of somebody else (macOS lets anyone make one) is as bad as a link."""
        if info.st_nlink > 1 and info.st_uid != os.fstat(self.fd).st_uid:
            raise UntrustedError(f"{self.path / name} is a hard link to a file of another account")

    def replace(self, name: str, data: bytes, *, mode: int = 0o600) -> None:
        """Durably, and by rename: readers see the old bytes or the new ones. The file keeps its owner;
        a new one gets the folder's."""
        info = self._look(name) or os.fstat(self.fd)
        temporary = f".{name}.{secrets.token_hex(8)}.tmp"
        fd = os.open(temporary, _CREATE, mode, dir_fd=self.fd)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(file.fileno(), mode)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), info.st_uid, info.st_gid)
                file.write(data)
                file.flush()
                full_sync(file.fileno())
            os.replace(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except BaseException:
            os.unlink(temporary, dir_fd=self.fd)
            raise
        self.sync()

    def sweep_temporary(self, name: str) -> None:
        """What a `replace` of `name` has left that did not get to its end."""
        pattern = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.tmp")
        for found in filter(pattern.fullmatch, self.names()):
            os.unlink(found, dir_fd=self.fd)

    def names(self) -> list[str]:
        with os.scandir(self.fd) as found:
            return [entry.name for entry in found]

    def has_folder(self, name: str) -> bool:
        """False where nothing stands; UntrustedError where something else does."""
        info = self._look(name)
        if info is None:
            return False
        if not stat.S_ISDIR(info.st_mode):
            what = "a link" if stat.S_ISLNK(info.st_mode) else "not a folder"
            raise _planted(self.path / name, what)
        return True

    def private_folder(self, name: str) -> Folder:
        """Made if it is missing; ours alone, so that nobody else can plant anything in it."""
        if not self.has_folder(name):
            os.mkdir(name, PRIVATE, dir_fd=self.fd)
        made = self.folder(name)
        info = os.fstat(made.fd)
        if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) != PRIVATE:
            os.close(made.fd)
            raise _planted(made.path, "not the agent's own")
        return made

    def move(self, name: str, target: Folder, new: str) -> None:
        """A folder to a name that is free. A link under that name is not followed: it is in the way."""
        if target._look(new) is not None:
            raise _planted(target.path / new, "in the way")
        os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=target.fd)

    def remove_folder(self, name: str) -> None:
        """With all that is in it, links as links; nothing where there is none."""
        if self.has_folder(name):
            shutil.rmtree(name, dir_fd=self.fd)

    def sync(self) -> None:
        full_sync(self.fd)

    def _look(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None


def open_regular(name: str, dir_fd: int | None, shown: Path) -> BufferedReader:
    """For reading, without waiting for a fifo's writer. `shown` is the path that errors name."""
    return os.fdopen(open_plain(name, dir_fd, shown)[0], "rb")


def open_plain(name: str, dir_fd: int | None, shown: Path | str) -> tuple[int, os.stat_result]:
    """A regular file's descriptor, for reading, and what `fstat` says of it; the caller closes it."""
    fd = _open_real(name, dir_fd, _READ, shown)
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        raise _planted(shown, "not a regular file")
    return fd, info


def open_folder(name: str | Path, dir_fd: int | None, shown: Path | str) -> int:
    """A real folder's descriptor, to list it; the caller closes it."""
    return _open_real(name, dir_fd, _LIST, shown)


def _walk(path: Path) -> int:
    """A descriptor of `path`, which must be absolute."""
    if not path.is_absolute() or ".." in path.parts:
        raise UntrustedError(f"{path} is not a plain absolute path")
    ahead, links = list(reversed(path.parts[1:])), 0
    fd = os.open("/", _LIST)
    while ahead:
        part, before = ahead.pop(), fd
        try:
            target = _link_of_root(part, before) if ahead else None
            links += target is not None
            if target is None:
                fd = _open_real(part, before, _PASS if ahead else _LIST, path)
            else:
                ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)
                fd = os.open("/", _LIST) if target.is_absolute() else os.dup(before)
        finally:
            os.close(before)
        if links > MAX_LINKS:
            os.close(fd)
            raise _planted(path, "a circle of links")
    return fd


def _link_of_root(part: str, fd: int) -> Path | None:
    """Where `part` leads, if it is a link in a folder that only root can write."""
    holder = os.fstat(fd)
    if holder.st_uid != 0 or holder.st_mode & 0o022:
        return None
    try:
        return Path(os.readlink(part, dir_fd=fd))
    except OSError:
        return None


def _open_real(part: str | Path, fd: int | None, flags: int, path: Path | str) -> int:
    try:
        return os.open(part, flags, dir_fd=fd)
    except OSError as error:
        if error.errno not in _NOT_A_FOLDER:
            raise
        info = os.stat(part, dir_fd=fd, follow_symlinks=False)
        linked = stat.S_ISLNK(info.st_mode)
        raise _planted(path, f"a link at {str(part)!r}" if linked else "not a folder") from None


def _planted(path: Path | str, what: str) -> UntrustedError:
    return UntrustedError(
        f"{path} is {what}", remedy="put a real one there, or name the real one in agent.toml"
    )
