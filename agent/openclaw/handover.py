"""A tree that npm built as the gateway's account becomes the agent's, before it is hashed and sealed.

The gateway must not be able to change what it runs (P1). While npm works, the account owns what npm
writes; a compromised gateway is the same account. So the folders are taken first, from the top, and
nothing can be moved any more; then each file is judged by what it is; and in the end everything is copied
to new files, since somebody may still hold an old one open for writing.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path, PurePosixPath

from agent.copying import copy_out
from shared.account import Account
from shared.errors import UntrustedError
from shared.untrusted import Folder, open_regular

OPEN, EXECUTABLE, PLAIN = 0o755, 0o755, 0o644
MAX_DEPTH = 100
_File = tuple[Path, os.stat_result]


def lend(folder: Path, account: Account) -> None:
    """A new folder in which the account may work."""
    folder.mkdir(mode=0o700)
    os.chown(folder, account.uid, account.gid)


def hand_over(folder: Path, account: Account, home: str) -> None:
    """Everything below `folder` to this process's own account, open to all for reading. Blocking.

    Raises UntrustedError for a link that leads out of the folder's parent, for a file that somebody else
    owns or that has a name elsewhere, and for anything that is neither file, folder nor link.
    """
    taken = folder.with_name(f"{folder.name}.taken")
    with Folder.own(folder.parent) as parent, parent.folder(folder.name) as source:
        files: list[_File] = []
        _take(source, PurePosixPath(folder.name), account, files)
        _check_names(files)
        copy_out(source, taken, home)
        parent.remove_folder(folder.name)
        parent.move(taken.name, parent, folder.name)


def _take(folder: Folder, place: PurePosixPath, account: Account, files: list[_File]) -> None:
    """One folder and all below: ours from here on, so its entries stay what they are."""
    if len(place.parts) > MAX_DEPTH:
        raise UntrustedError(f"{folder.path} lies more than {MAX_DEPTH} folders deep")
    os.fchown(folder.fd, os.geteuid(), os.getegid())
    os.fchmod(folder.fd, OPEN)
    for name in folder.names():
        info = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            with folder.folder(name) as deeper:
                _take(deeper, place / name, account, files)
        elif stat.S_ISLNK(info.st_mode):
            _check_link(os.readlink(name, dir_fd=folder.fd), place / name)
            os.chown(name, os.geteuid(), os.getegid(), dir_fd=folder.fd, follow_symlinks=False)
        else:
            files.append((folder.path / name, _take_file(folder, name, account)))


def _take_file(folder: Folder, name: str, account: Account) -> os.stat_result:
    """What it was before. Its mode is set after its owner: a setuid bit must not survive."""
    with open_regular(name, folder.fd, folder.path / name) as file:
        fd = file.fileno()
        info = os.fstat(fd)
        if info.st_uid not in (account.uid, os.geteuid()):
            raise UntrustedError(f"{folder.path / name} belongs to another account")
        if info.st_uid == account.uid:
            os.fchown(fd, os.geteuid(), os.getegid())
            os.fchmod(fd, EXECUTABLE if info.st_mode & stat.S_IXUSR else PLAIN)
        return info


def _check_names(files: list[_File]) -> None:
    """Builds of native modules link files to each other; a name outside would be a way back in, and a
    file of ours that the account has linked in here was never its to publish."""
    seen = Counter((info.st_dev, info.st_ino) for _, info in files)
    for path, info in files:
        if info.st_nlink != seen[info.st_dev, info.st_ino]:
            raise UntrustedError(f"{path} has another name outside of the tree")


def _check_link(target: str, place: PurePosixPath) -> None:
    """`..` may stand only in front, so that no other link on the way decides where it leads."""
    parts = PurePosixPath(target).parts
    ups = len(parts) - len([part for part in parts if part != ".."])
    in_front = all(part == ".." for part in parts[:ups])
    if target.startswith("/") or not in_front or ups >= len(place.parts):
        raise UntrustedError(f"{place} is a link out of the tree, to {target[:200]!r}")
