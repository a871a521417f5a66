"""What is in a folder, entry by entry: enough to see which entries of an earlier copy are out of date.

An entry is told from its former self by inode, size and both times, as rsync and git do. The change time
cannot be set by a program. A database may be written through a mapping that moves no time; what looks like
one is never taken as unchanged.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from shared.untrusted import Folder

_DATABASE: Final = re.compile(r"\.(sqlite3?|db)(-wal|-shm|-journal)?$")


def is_database(path: str) -> bool:
    return _DATABASE.search(path) is not None


@dataclass(frozen=True)
class Stamp:
    """Times in nanoseconds. Of a folder only mode, owner and modification time are kept: its inode says
    nothing about what is in it."""

    mode: int
    uid: int
    gid: int
    modified: int
    size: int = 0
    changed: int = 0
    inode: int = 0

    @classmethod
    def of(cls, info: os.stat_result) -> Stamp:
        about = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns)
        if stat.S_ISDIR(info.st_mode):
            return cls(*about)
        return cls(*about, info.st_size, info.st_ctime_ns, info.st_ino)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def is_copied_by(self, copy: Stamp) -> bool:
        """A copy has an inode and a change time of its own; the rest went along."""
        mine, theirs = ((e.mode, e.modified, e.size) for e in (self, copy))
        return mine == theirs


Inventory = dict[str, Stamp]
"""By path relative to the folder; every entry, folders too."""


@dataclass(frozen=True)
class Difference:
    """Between an inventory and a later one. Paths below a new folder are not listed again."""

    gone: list[str]
    new_folders: list[str]
    stale: list[str]
    """Files and links that are new or not what they were."""
    retouched: list[str]
    """Folders that were there and whose mode, owner or time is another now."""


def take_inventory(folder: Folder) -> Inventory:
    """Blocking; looks at everything, opens nothing but folders. What vanishes meanwhile is left out."""
    found: Inventory = {}
    for top, folders, names, fd in os.fwalk(".", dir_fd=folder.fd):
        here = PurePath(top)
        for name in (*folders, *names):
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            found[str(here / name)] = Stamp.of(info)
    return found


def compare(before: Inventory, now: Inventory) -> Difference:
    """What must be done to a copy that was made at `before`, so that it shows `now`."""
    kinds = {path: stat.S_IFMT(stamp.mode) for path, stamp in now.items()}
    other = [p for p in before if p in now and stat.S_IFMT(before[p].mode) != kinds[p]]
    gone = [path for path in before if path not in now] + other
    known = {path: stamp for path, stamp in before.items() if path not in set(gone)}
    fresh = {path for path, stamp in now.items() if stamp.is_folder and path not in known}
    stale = [
        path
        for path, stamp in now.items()
        if not stamp.is_folder and (known.get(path) != stamp or is_database(path))
    ]
    return Difference(
        gone=[path for path in gone if _parent(path) not in gone],
        new_folders=[path for path in fresh if _parent(path) not in fresh],
        stale=[path for path in stale if _parent(path) not in fresh],
        retouched=[path for path, stamp in known.items() if stamp.is_folder and now[path] != stamp],
    )


def _parent(path: str) -> str:
    return str(PurePath(path).parent)
